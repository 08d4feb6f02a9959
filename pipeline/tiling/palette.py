"""A palette: the colours of a scan on a coarse grid, whatever their source, and the part of it that a tile sees.

The palette tells the generator which place has which colour; the generator aligns the colours with the edges in the
lightness. The palette is enlarged by cubic convolution, row by row and column by column, so that a tile's part of it
does not depend on its neighbours.

References
----------
Keys, Cubic Convolution Interpolation for Digital Image Processing, IEEE Transactions on Acoustics, Speech, and Signal
Processing 29(6), 1981 (a = -0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

_A = -0.5


@dataclass(frozen=True)
class Palette:
    """Mean a*, b* of each cell of a grid over a scan; the first cell starts at the scan's first pixel.

    Attributes
    ----------
    cells : (2, rows, columns) float32 a*, b*
    cell_yx : height and width of a cell in scan pixels, not necessarily whole numbers
    """

    cells: F32
    cell_yx: tuple[float, float]

    def under(self, origin_yx: tuple[int, int], shape_yx: tuple[int, int]) -> F32:
        """(2, H, W) float32 a*, b* under a rectangle of the scan, enlarged."""
        return enlarged(self.cells, origin_yx, shape_yx, self.cell_yx)


def mean_ab(distribution: F32, colours_ab: F32) -> F32:
    """(2, rows, columns) mean a*, b* of a (K, rows, columns) distribution over (K, 2) colours."""
    mean: F32 = np.einsum("krc,kp->prc", distribution, colours_ab).astype(np.float32)
    return mean


def enlarged(
    cells: F32, origin_yx: tuple[float, float], shape_yx: tuple[int, int], cell_yx: tuple[float, float]
) -> F32:
    """(2, rows, columns) cells under a rectangle: (2, H, W) float32.

    Parameters
    ----------
    origin_yx : the rectangle's first pixel, in pixels from the grid's corner
    cell_yx : height and width of a cell in the same pixels
    """
    (rows, down), (columns, across) = (
        _needed(cubic_weights(origin, length, cell, count))
        for origin, length, cell, count in zip(origin_yx, shape_yx, cell_yx, cells.shape[1:], strict=True)
    )
    grown: F32 = np.matmul(np.matmul(down, cells[:, rows, columns]), across.T)
    return grown


def _needed(weights: F32) -> tuple[slice, F32]:
    """The cells with any weight, and their weights: a tile of a large scan lies over few cells."""
    used = np.flatnonzero(weights.any(axis=0))
    cells = slice(int(used[0]), int(used[-1]) + 1)
    return cells, np.ascontiguousarray(weights[:, cells])


def cubic_weights(origin: float, length: int, cell: float, cells: int) -> F32:
    """(length, cells) weights of cells for each pixel of a line; rows sum to 1. Outside, the outermost cells repeat.

    Parameters
    ----------
    origin : the line's first pixel, in pixels from the edge of the first cell
    cell : size of a cell in pixels
    """
    place = (origin + np.arange(length) + 0.5) / cell - 0.5
    low = np.floor(place)
    weights = np.zeros((length, cells))
    lines = np.arange(length)
    for step in range(-1, 3):
        apart = np.abs(place - (low + step))
        near = ((_A + 2) * apart - (_A + 3)) * apart**2 + 1
        far = _A * (((apart - 5) * apart + 8) * apart - 4)
        weight = np.where(apart <= 1, near, np.where(apart < 2, far, 0.0))
        np.add.at(weights, (lines, np.clip(low + step, 0, cells - 1).astype(np.intp)), weight)
    return weights.astype(np.float32)
