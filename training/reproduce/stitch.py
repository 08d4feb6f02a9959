"""One picture coloured from overlapping patches, averaged where they meet: the second way of the 2048x4096 report."""

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
    """A picture (H, W, 3) uint8, its (H, W) L* and (2, H, W) a*, b*, and of how many patches it was made."""

    rgb: NDArray[np.uint8]
    lightness: F32
    chroma: F32
    patches: int

    def edge_score(self, stride_yx: tuple[int, int]) -> float:
        """How much larger the steps of colour are on the lines of a grid than beside them; 1 shows no grid.

        NaN where the picture is too small for such a grid. See :mod:`pipeline.quality.seams`.
        """

        def read(roi: Roi) -> tuple[F32, F32]:
            return self.lightness[roi.rows, roi.columns], self.chroma[:, roi.rows, roi.columns]

        return seam_score(read, (self.lightness.shape[0], self.lightness.shape[1]), stride_yx).edge


def stitch(lightness: F32, colorize: Colorizer, tile_yx: tuple[int, int], stride_px: int) -> Stitched:
    """Colour (H, W) L* in patches ``stride_px`` apart, in both directions, by their plain average.

    Chroma is averaged, as in a run of the main job; the lightness stays the picture's own.
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
