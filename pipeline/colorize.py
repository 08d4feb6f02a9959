"""Lightness of one block in, chroma of that block out: the function that every scheduler runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.blend import BlockBlender
from pipeline.errors import PredictionError
from pipeline.grid import Block, Roi, TileGrid

F32 = NDArray[np.float32]
Predict = Callable[[F32], F32]


def reflected_out(lightness: F32, shape_yx: tuple[int, int]) -> F32:
    """Grow (h, w) to at least ``shape_yx`` by reflection at the lower and right edge, as often as needed."""
    missing = [(0, max(0, wanted - have)) for wanted, have in zip(shape_yx, lightness.shape, strict=True)]
    if missing == [(0, 0), (0, 0)]:
        return lightness
    return np.pad(lightness, missing, mode="symmetric")


def _batches(block: Block, batch: int) -> Iterator[tuple[tuple[int, int], ...]]:
    for first in range(0, len(block.tiles_yx), batch):
        yield block.tiles_yx[first : first + batch]


def colorize_block(
    grid: TileGrid,
    block: Block,
    window: str,
    lightness: F32,
    predict: Predict,
    batch: int,
    on_tiles: Callable[[int], None] = lambda tiles: None,
) -> F32:
    """Predict every tile that touches ``block`` and average them where they overlap.

    Parameters
    ----------
    grid, block, window : what to cut and how to weight it
    lightness : (h, w) float32 L* in [0, 100] of ``block.read_roi`` as far as the scan reaches
    predict : (N, 1, T, U) L* to (N, 2, T, U) a*, b*; N is at most ``batch``
    on_tiles : called with the number of tiles after each batch

    Returns
    -------
    (2, H, W) float32 a*, b* of ``block.write_roi``

    Raises
    ------
    PredictionError : a prediction that is not finite.
    """
    source = reflected_out(lightness, block.read_roi.shape_yx)
    height, width = grid.tile_yx
    blender = BlockBlender(grid, block, window)
    for tiles in _batches(block, batch):
        cut = np.empty((len(tiles), 1, height, width), np.float32)
        for i, (y, x) in enumerate(tiles):
            top, left = y - block.read_roi.y0, x - block.read_roi.x0
            cut[i, 0] = source[top : top + height, left : left + width]
        for tile, chroma in zip(tiles, predict(cut), strict=True):
            blender.add(tile, chroma)
        on_tiles(len(tiles))
    mean = blender.mean()
    if not np.isfinite(mean).all():
        roi = block.write_roi
        raise PredictionError(
            f"rows {roi.y0}-{roi.y1}, columns {roi.x0}-{roi.x1}: the engine predicted values that are not numbers: the "
            "picture would have holes; try another --engine, or export the model again"
        )
    return mean


def lightness_roi(grid: TileGrid, block: Block) -> Roi:
    """What of the scan :func:`colorize_block` needs to see: the block's read region within the scan."""
    return block.read_roi.clipped(grid.shape_yx)
