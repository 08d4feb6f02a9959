"""One picture coloured from averaged overlapping patches: the second method of the 2048x4096 report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.colour.lab import rgb_from_lab
from pipeline.quality.seams import seam_score
from pipeline.tiling.blend import BlockBlender
from pipeline.tiling.grid import TileGrid
from pipeline.types import Roi
from training.evaluation.colorizers import Colorizer
from training.evaluation.sheet import as_samples

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Stitched:
    """A picture (H, W, 3) uint8, its (H, W) L* and (2, H, W) a*, b*, and its number of patches."""

    rgb: NDArray[np.uint8]
    lightness: F32
    chroma: F32
    patches: int

    def edge_score(self, stride_yx: tuple[int, int]) -> float:
        """Ratio of colour steps on the lines of a grid to those beside them; 1 means that no grid shows.

        NaN if the picture is too small for such a grid. See :mod:`pipeline.quality.seams`.
        """

        def read(roi: Roi) -> tuple[F32, F32]:
            return self.lightness[roi.rows, roi.columns], self.chroma[:, roi.rows, roi.columns]

        return seam_score(read, (self.lightness.shape[0], self.lightness.shape[1]), stride_yx).edge


def stitch(lightness: F32, colorize: Colorizer, tile_yx: tuple[int, int], stride_px: int) -> Stitched:
    """Colour (H, W) L* by the plain average of patches that are ``stride_px`` apart in both directions.

    Chroma is averaged, as in an ordinary run; the lightness stays the picture's own.
    """
    shape_yx = lightness.shape[0], lightness.shape[1]
    grid = TileGrid.of(shape_yx, tile_yx, (stride_px, stride_px))
    block = grid.block((0, 0), max(shape_yx))
    blender = BlockBlender(grid, block, "average")
    for origin in block.tile_origins:
        y, x = origin
        blender.add(origin, colorize(lightness[y : y + tile_yx[0], x : x + tile_yx[1]]))
    chroma = np.asarray(blender.mean())
    return Stitched(as_samples(rgb_from_lab(lightness, chroma)), lightness, chroma, len(block.tile_origins))
