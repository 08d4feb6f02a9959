"""True palettes of training pictures, degraded like those that a generator gets in use.

A palette is the mean a*, b* of each cell of a grid. In use, palettes are predicted, or come from a copy that does not
quite fit: they are coarse, shifted, noisy and faded. There are two kinds of change. The generator has to correct
*errors* of the palette (shift, noise, blur), so the truth stays as it is. It has to follow *wishes* (fading, a tint),
so the truth changes with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.tiling.palette import enlarged
from training.config import Spoiling

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Spoiled:
    """The palette for a crop, and the change of the crop's true chroma.

    Attributes
    ----------
    palette : (2, H, W) a*, b*, enlarged to the crop
    gain, tint : the truth becomes ``truth * gain + tint``; ``tint`` is (2,)
    """

    palette: F32
    gain: np.float32
    tint: F32


def spoiled(chroma: F32, inside: tuple[float, float, float, float], crop_yx: tuple[int, int], spoiling: Spoiling,
            rng: np.random.Generator) -> Spoiled:  # fmt: skip
    """The palette of a picture as the generator sees it for one crop.

    Parameters
    ----------
    chroma : (2, h, w) true a*, b* of the whole picture, at any size
    inside : top, left, height and width of the crop as shares of the picture
    crop_yx : size of the crop in pixels, to which the palette is enlarged
    """
    short = min(chroma.shape[1:])
    most = min(spoiling.most_cells, short)
    cells = math.exp(rng.uniform(math.log(min(spoiling.least_cells, most)), math.log(most)))
    rows, columns = (max(1, round(cells * extent / short)) for extent in chroma.shape[1:])
    grid = np.stack(
        [cv2.resize(np.ascontiguousarray(p), (columns, rows), interpolation=cv2.INTER_AREA) for p in chroma]
    )
    gain, tint, shift = np.float32(1), np.zeros(2, np.float32), np.zeros(2)
    if rng.random() >= spoiling.unspoiled:
        shift = rng.uniform(-spoiling.shift_cells, spoiling.shift_cells, 2)
        grid = _noisy(grid, spoiling, rng)
    if rng.random() >= spoiling.unspoiled:
        gain = np.float32(1 - rng.uniform(-0.2, 1) * spoiling.fade)
        tint = rng.normal(0, spoiling.tint, 2).astype(np.float32)
    top, left, tall, wide = inside
    # In pixels of the crop; the picture is 1 / tall times as high as the crop.
    cell_yx = crop_yx[0] / tall / rows, crop_yx[1] / wide / columns
    origin_yx = top / tall * crop_yx[0] + shift[0] * cell_yx[0], left / wide * crop_yx[1] + shift[1] * cell_yx[1]
    palette = enlarged(grid, origin_yx, crop_yx, cell_yx)
    return Spoiled(palette * gain + tint[:, None, None], gain, tint)


def _noisy(grid: F32, spoiling: Spoiling, rng: np.random.Generator) -> F32:
    blur = rng.uniform(0, spoiling.blur_cells)
    if blur > 0.2:
        grid = np.stack([cv2.GaussianBlur(p, (0, 0), blur, borderType=cv2.BORDER_REPLICATE) for p in grid])
    return grid + rng.normal(0, rng.uniform(0, spoiling.noise), grid.shape).astype(np.float32)
