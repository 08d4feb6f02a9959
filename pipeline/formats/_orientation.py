"""Pictures turned upright, for formats that cannot store an orientation; window by window, never as a whole.

References
----------
TIFF 6.0, tag 274.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.picture import OutputImage

ReadWindow = Callable[[slice, slice], NDArray]
# Operations on stored rows and columns; the transposition comes last.
_ROWS_REVERSED, _COLUMNS_REVERSED, _TRANSPOSED = (
    frozenset({3, 4, 6, 7}),
    frozenset({2, 3, 7, 8}),
    frozenset({5, 6, 7, 8}),
)
_BACK = {6: 8, 8: 6}


def upright(picture: OutputImage) -> OutputImage:
    """``picture`` turned to orientation 1. Its georeference is not turned with it."""
    orientation = picture.orientation or 1
    shape_yx = turned_shape(picture.shape_yx, orientation)
    return replace(
        picture,
        shape_yx=shape_yx,
        read_window=turned(picture.read_window, picture.shape_yx, orientation),
        resolution=picture.resolution and _turned_resolution(picture.resolution, orientation),
        orientation=1,
    )


def turned_shape(shape_yx: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Rows, columns of the upright picture, given those stored in ``orientation``; and the other way round."""
    return (shape_yx[1], shape_yx[0]) if orientation in _TRANSPOSED else shape_yx


def turned(read: ReadWindow, shape_yx: tuple[int, int], orientation: int) -> ReadWindow:
    """A function that reads windows of the upright picture; ``read`` reads the stored one, of ``shape_yx``."""
    height, width = shape_yx

    def window(rows: slice, columns: slice) -> NDArray:
        if orientation in _TRANSPOSED:
            rows, columns = columns, rows
        if orientation in _ROWS_REVERSED:
            rows = slice(height - rows.stop, height - rows.start)
        if orientation in _COLUMNS_REVERSED:
            columns = slice(width - columns.stop, width - columns.start)
        samples = read(rows, columns)
        samples = samples[::-1] if orientation in _ROWS_REVERSED else samples
        samples = samples[:, ::-1] if orientation in _COLUMNS_REVERSED else samples
        return np.ascontiguousarray(samples.swapaxes(0, 1) if orientation in _TRANSPOSED else samples)

    return window


def turned_back(read: ReadWindow, shape_yx: tuple[int, int], orientation: int) -> ReadWindow:
    """A function that reads windows of the stored picture, of ``shape_yx``; ``read`` reads the upright one."""
    return turned(read, turned_shape(shape_yx, orientation), _BACK.get(orientation, orientation))


def _turned_resolution(resolution: tuple[float, float, str], orientation: int) -> tuple[float, float, str]:
    x, y, unit = resolution
    return (y, x, unit) if orientation in _TRANSPOSED else resolution
