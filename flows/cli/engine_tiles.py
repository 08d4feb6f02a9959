"""Real tiles for calibrating the ranges of int8: from a user's own scans, or those shipped with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.measure.reference_tiles import COUNT, reference_tiles, with_palettes
from engines.spec import Model
from flows.inputs import find_scans
from pipeline.colour.lab import lightness_from_samples
from pipeline.errors import UsageError
from pipeline.readers import open_scan

_MOST = 300
_SIDE_PX = 256


def calibration_tiles(folder: Path | None, model: Model) -> NDArray[np.float32]:
    """(N, 1, T, T) L* of up to 300 tiles, spread over the scans of ``folder``.

    If the model takes a palette, (N, 3, T, T) with colours drawn for each tile.

    Raises
    ------
    UsageError : no scan there, or none as large as a tile. ScanError : a scan cannot be read.
    """
    multiple = model.card.size_multiple
    side = -(-_SIDE_PX // multiple) * multiple
    if folder is None:
        return reference_tiles((side, side), COUNT, model.card.channels)
    random = np.random.default_rng(0)
    scans = list(find_scans([str(folder)]).scans)
    if len(scans) > _MOST:
        scans = [scans[index] for index in random.choice(len(scans), _MOST, replace=False)]
    tiles = []
    for scan in scans:
        with open_scan(scan.path) as reader:
            height, width = reader.info.shape_yx
            if min(height, width) < side:
                continue
            for _ in range(-(-_MOST // len(scans))):
                y, x = (int(random.integers(0, extent - side + 1)) for extent in (height, width))
                tiles.append(lightness_from_samples(reader.read(slice(y, y + side), slice(x, x + side))))
    if not tiles:
        raise UsageError(
            f"{folder}: no scan of at least {side}x{side} px, so no range could be taken; give larger ones"
        )
    lightness = np.stack(tiles[:_MOST])[:, None].astype(np.float32)
    return with_palettes(lightness, range(len(lightness))) if model.card.takes_palette else lightness
