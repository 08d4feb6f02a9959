"""Weighted accumulation of overlapping tiles into one block.

Sums are float32 and run over the tiles in raster order, so a pixel's value depends neither on the block division nor on
the number of workers. The weight of a pixel is separable: the product of two 1-D sums, never an image-sized count.
Sums are computed on the device that holds the predictions, see :mod:`pipeline.support.array_backend`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CoverageError
from pipeline.support.array_backend import HOST, Array, Device
from pipeline.tiling.grid import Block, TileAxis, TileGrid, TileOrigin
from pipeline.tiling.weights import window_weights

F32 = NDArray[np.float32]


def _coverage(axis: TileAxis, weights: F32, begin: int, end: int) -> F32:
    """Summed weights along one axis for pixels ``begin <= p < end``."""
    total = np.zeros(end - begin, np.float32)
    for start in axis.touching(begin, end):
        first, last = max(start, begin), min(start + axis.size, end)
        total[first - begin : last - begin] += weights[first - start : last - start]
    if not (total > 0).all():
        where = begin + int(np.flatnonzero(total <= 0)[0])
        raise CoverageError(
            f"pixel {where} of {axis} is covered by no tile: its colour would be undefined; lower the stride"
        )
    return total


class BlockBlender:
    """Sums up the tiles of ``block`` and returns their weighted mean.

    Parameters
    ----------
    grid, block : the tile grid and the block of it to fill
    window : name of the window, see :mod:`pipeline.tiling.weights`
    device : holds the predictions and sums them up
    """

    def __init__(self, grid: TileGrid, block: Block, window: str, device: Device = HOST) -> None:
        self._grid = grid
        self._roi = block.write_roi
        self._window = window
        self._device = device
        weights_y = window_weights(window, grid.y.size)
        weights_x = window_weights(window, grid.x.size)
        self._uniform = bool((weights_y == 1).all() and (weights_x == 1).all())
        self._weights = self._outer(weights_y, weights_x)
        self._coverage = self._coverage_of(grid)
        self._sum = device.zeros((2, *self._roi.shape_yx), self._coverage)

    def add(self, origin: TileOrigin, chroma: Array) -> None:
        """Add one tile's (2, T, U) prediction, without the pixels outside the block."""
        (rows, columns), (own_rows, own_columns) = self._overlap(origin)
        inside = chroma[:, own_rows, own_columns]
        if not self._uniform:
            inside = inside * self._weights[own_rows, own_columns]
        self._sum[:, rows, columns] += inside

    def add_all(self, origins: Sequence[TileOrigin], chroma: Array) -> None:
        """Add N tiles, (N, 2, T, U). Gives the same bytes as :meth:`add` for each in turn, in fewer device calls."""
        weighted = chroma if self._uniform else chroma * self._weights
        for i, origin in enumerate(origins):
            (rows, columns), (own_rows, own_columns) = self._overlap(origin)
            self._sum[:, rows, columns] += weighted[i, :, own_rows, own_columns]

    def add_mean(self, grid: TileGrid, mean: NDArray[Any], extra_tiles: Iterable[TileOrigin] = ()) -> None:
        """Add all tiles of ``grid``, and ``extra_tiles``, at once, given their (2, h, w) weighted mean.

        The grid must have the tile size and window of this blender. The result differs from adding the tiles one by one
        only by the rounding of the stored mean.
        """
        xp = self._device.xp
        wide = xp.astype(self._device.up(mean), xp.float32, copy=False)
        self._sum += wide * self._weight_of(grid, extra_tiles)

    def cover_only(self, grid: TileGrid, tiles: Iterable[TileOrigin]) -> None:
        """Expect only the tiles of ``grid``, and ``tiles``, instead of all tiles of this blender's own grid."""
        self._coverage = self._weight_of(grid, tiles)

    def _weight_of(self, grid: TileGrid, tiles: Iterable[TileOrigin]) -> Array:
        weight = self._coverage_of(grid)
        for origin in tiles:
            (rows, columns), (own_rows, own_columns) = self._overlap(origin)
            weight[rows, columns] += self._weights[own_rows, own_columns]
        return weight

    def _coverage_of(self, grid: TileGrid) -> Array:
        """(h, w) summed weights of all tiles of ``grid`` in the block."""
        roi = self._roi
        known_y = _coverage(grid.y, window_weights(self._window, grid.y.size), roi.y0, roi.y1)
        known_x = _coverage(grid.x, window_weights(self._window, grid.x.size), roi.x0, roi.x1)
        return self._outer(known_y, known_x)

    def _outer(self, along_y: F32, along_x: F32) -> Array:
        """Outer product, computed on the device: each factor is uploaded as one line."""
        return self._device.up(along_y)[:, None] * self._device.up(along_x)[None, :]

    def _overlap(self, origin: TileOrigin) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The overlap of a tile and the block: its rows and columns in the block, then in the tile."""
        (y, x), roi = origin, self._roi
        y0, y1 = max(y, roi.y0), min(y + self._grid.y.size, roi.y1)
        x0, x1 = max(x, roi.x0), min(x + self._grid.x.size, roi.x1)
        of_block = slice(y0 - roi.y0, y1 - roi.y0), slice(x0 - roi.x0, x1 - roi.x0)
        return of_block, (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))

    def mean(self) -> Array:
        """The (2, h, w) weighted mean, on the device. The blender is used up."""
        self._sum /= self._coverage
        return self._sum
