"""What the desk measures when somebody asks: is the lightness of a result the scan's, and where do its tiles meet."""

from __future__ import annotations

from typing import Any

import numpy as np

from flows.review.correcting import Subject
from flows.review.pictures import Pictures
from pipeline.colour.lab import lightness_from_samples
from pipeline.results.sidecar import SIDECAR_ENDING
from pipeline.types import Roi

# Regions in all of a scan, so many a side; small scans are measured whole.
_REGIONS, _REGION_PX = 4, 256
_BINS, _TOP = 41, 2.0
_MOST_LINES = 2000


def lightness_differences(pictures: Pictures, subject: Subject) -> dict[str, Any]:
    """A histogram of the L* of the current result minus that of its scan, over regions from all over it.

    Returns
    -------
    ``counts`` in 41 steps from -2 to 2, the outermost of which hold all that is beyond; ``worst``, the largest distance
    in L*; ``pixels``, how many were compared

    Raises
    ------
    ColorizeError : store or picture cannot be read
    """
    turn, store = subject.turn, subject.store
    sidecar = store.path.with_name(f"{store.path.name.removesuffix('.zarr')}{SIDECAR_ENDING}")
    counts, worst, pixels = np.zeros(_BINS, np.int64), 0.0, 0
    edges = np.linspace(-_TOP, _TOP, _BINS + 1)
    for roi in _regions(turn.upright_yx):
        stored = turn.stored_roi(roi)
        coloured = store.uncoloured(stored)
        result = lightness_from_samples(pictures.samples(sidecar, roi)[..., :3])
        difference = result - turn.upright(store.read_lightness(stored))
        if coloured is not None:
            difference = difference[~turn.upright(coloured)]
        if difference.size:
            counts += np.histogram(np.clip(difference, -_TOP, _TOP), edges)[0]
            worst, pixels = max(worst, float(np.abs(difference).max())), pixels + difference.size
    return {"counts": counts.tolist(), "top": _TOP, "worst": round(worst, 2), "pixels": pixels}


def _regions(shape_yx: tuple[int, int]) -> list[Roi]:
    """Regions from all over a picture, all of a small one."""
    places = []
    for extent in shape_yx:
        if extent <= _REGIONS * _REGION_PX:
            places.append([(start, min(start + _REGION_PX, extent)) for start in range(0, extent, _REGION_PX)])
        else:
            starts = np.linspace(0, extent - _REGION_PX, _REGIONS).astype(int).tolist()
            places.append([(start, start + _REGION_PX) for start in starts])
    return [Roi(y0, y1, x0, x1) for y0, y1 in places[0] for x0, x1 in places[1]]


def meetings(subject: Subject) -> dict[str, Any]:
    """Where blocks and tiles of the current version begin, in upright pixels: lines on which a seam could be seen."""
    version, spec, shape_yx = subject.version(subject.item.version), subject.spec, subject.store.info.shape_yx
    block_yx = version.block_px, version.block_px
    return {"blocks": _lines(subject, block_yx, shape_yx), "tiles": _lines(subject, spec.stride_yx, shape_yx)}


def _lines(subject: Subject, step_yx: tuple[int, int], shape_yx: tuple[int, int]) -> dict[str, Any]:
    rows, columns = (range(step, extent, step) for step, extent in zip(step_yx, shape_yx, strict=True))
    across = [subject.turn.to_upright(0, y) for y in rows[:_MOST_LINES]]
    down = [subject.turn.to_upright(x, 0) for x in columns[:_MOST_LINES]]
    upright, level = (across, down) if subject.turn.is_transposed else (down, across)
    return {"step": min(step_yx), "x": [x for x, _ in upright], "y": [y for _, y in level]}
