"""Temporary pixels on disk: written once, read by window, in an unnamed file.

Plain files are used instead of ``np.memmap``: a full disk is then a reportable error (writing to a mapped page without
disk space kills the process with SIGBUS). An unnamed file cannot be left behind, not even by a kill.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray


class ScratchRaster:
    """An array of rows, columns and optionally channels; a context manager.

    The file stores it in vertical strips, each as wide as the usual windows, so that a window is contiguous in the
    file.

    Parameters
    ----------
    folder : where the file is created
    shape : rows, columns, and channels if there are any
    strip_columns : width of a strip
    dtype : type of the samples
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], strip_columns: int, dtype: np.dtype) -> None:
        self._height, self._width, *channels = shape
        self._channels = tuple(channels)
        self._strip_columns = strip_columns
        self._dtype = np.dtype(dtype)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Buffered data may not fit on a full disk, but nobody needs it any more.
        with contextlib.suppress(OSError):
            self._file.close()

    def write(self, y: int, x: int, samples: NDArray) -> None:
        """Write ``samples`` at row ``y``, column ``x``: whole strips, any number of rows. Not from several threads."""
        for start in range(x, x + samples.shape[1], self._strip_columns):
            strip = samples[:, start - x : start - x + self._strip_columns]
            self._file.seek(self._offset(y, start))
            self._file.write(np.ascontiguousarray(strip).data)
        self._file.flush()  # `read` bypasses the buffer

    def read(self, rows: slice, columns: slice) -> NDArray:
        """The samples of any window; from any number of threads."""
        window = np.empty((rows.stop - rows.start, columns.stop - columns.start, *self._channels), self._dtype)
        first = columns.start // self._strip_columns * self._strip_columns
        for x in range(first, columns.stop, self._strip_columns):
            strip = self._read_strip(rows, x)
            begin, end = max(x, columns.start), min(x + strip.shape[1], columns.stop)
            window[:, begin - columns.start : end - columns.start] = strip[:, begin - x : end - x]
        return window

    def _read_strip(self, rows: slice, x: int) -> NDArray:
        strip = np.empty((rows.stop - rows.start, self._columns_at(x), *self._channels), self._dtype)
        left, offset = strip.data.cast("B"), self._offset(rows.start, x)
        while left:
            count = os.preadv(self._file.fileno(), [left], offset)
            if count == 0:
                raise OSError("a temporary file was cut short")
            left, offset = left[count:], offset + count
        return strip

    def _columns_at(self, x: int) -> int:
        return min(self._strip_columns, self._width - x)

    def _offset(self, y: int, x: int) -> int:
        pixels = x * self._height + y * self._columns_at(x)
        return pixels * int(np.prod(self._channels, dtype=int)) * self._dtype.itemsize
