"""Windows of a written picture at every size: what a viewer that zooms asks for, with no copy of the picture on disk.

A reader here is opened once and asked by several threads. Where a format has smaller copies, windows come from them;
where it has none, they are made once and kept in memory, of pictures that are not too large for it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.formats._orientation import turned, turned_shape
from pipeline.formats._pyramid import halve, pyramid_levels
from pipeline.support.files import open_file

WHOLE_LIMIT_PX = 2**26
"""The largest picture without smaller copies that is decoded whole."""
_SMALLEST_PX = 512


class Levels(Protocol):
    """The sizes of an open picture; a context manager.

    Attributes
    ----------
    levels_yx : rows, columns of the picture and of its smaller copies, largest first
    """

    levels_yx: Sequence[tuple[int, int]]

    def read(self, level: int, rows: slice, columns: slice) -> NDArray:
        """(h, w, 3 or 4) samples of a window inside a level, uint8 or uint16.

        Raises
        ------
        Exception : of any type, if the file is damaged
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class TiffLevels(Levels):
    """Of a tiled TIFF: each tile that a window touches is read and decoded, and no other."""

    def __init__(self, path: Path, copies: Callable[[tifffile.TiffFile], list[tifffile.TiffPage]]) -> None:
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(open_file(path))
            tiff = stack.enter_context(tifffile.TiffFile(stream, name=path.name))
            self._pages = copies(tiff)
            if not all(page.is_tiled and page.planarconfig == 1 for page in self._pages):
                raise StoreError(f"{path}: a TIFF without tiles, which was not written here")
            for page in self._pages:
                page.dataoffsets, page.databytecounts, page.decode  # noqa: B018 - read here, before there are threads
            self._close = stack.pop_all().close
        self._stream, self._lock = stream, threading.Lock()
        self.levels_yx = [(page.shape[0], page.shape[1]) for page in self._pages]

    def read(self, level: int, rows: slice, columns: slice) -> NDArray:
        page = self._pages[level]
        height, width = page.tilelength, page.tilewidth
        across = -(-page.shape[1] // width)
        window = np.zeros((rows.stop - rows.start, columns.stop - columns.start, page.samplesperpixel), page.dtype)
        for y in range(rows.start // height, -(-rows.stop // height)):
            for x in range(columns.start // width, -(-columns.stop // width)):
                tile = self._tile(page, y * across + x)
                top, left = max(rows.start, y * height), max(columns.start, x * width)
                part = tile[top - y * height : rows.stop - y * height, left - x * width : columns.stop - x * width]
                window[top - rows.start :, left - columns.start :][: part.shape[0], : part.shape[1]] = part
        return window

    def _tile(self, page: Any, index: int) -> NDArray:
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        with self._lock:
            self._stream.seek(offset)
            data = self._stream.read(count)
        samples, _, shape = page.decode(data, index)
        return np.asarray(samples[0, : shape[1], : shape[2]])

    def close(self) -> None:
        self._close()


class WindowLevels(Levels):
    """Of a picture whose library reads windows of each level: ``read_window(level, rows, columns)``."""

    def __init__(
        self,
        levels_yx: Sequence[tuple[int, int]],
        read_window: Callable[[int, slice, slice], NDArray],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.levels_yx, self._read, self._close, self._lock = levels_yx, read_window, close, threading.Lock()

    def read(self, level: int, rows: slice, columns: slice) -> NDArray:
        with self._lock:
            return self._read(level, rows, columns)

    def close(self) -> None:
        self._close()


class WholeLevels(Levels):
    """Of a picture without smaller copies: decoded whole and halved, in 8 bits.

    Raises StoreError if the picture has more than ``WHOLE_LIMIT_PX`` pixels.
    """

    def __init__(self, shape_yx: tuple[int, int], read: Callable[[slice, slice], NDArray]) -> None:
        if prod(shape_yx) > WHOLE_LIMIT_PX:
            raise StoreError(
                f"{shape_yx[1]} x {shape_yx[0]} pixels without smaller copies are too many to look at; "
                "reprocess --format tiff adds one that has them"
            )
        self.levels_yx = pyramid_levels(shape_yx, _SMALLEST_PX)
        self._levels = [_eight_bit(read(slice(0, shape_yx[0]), slice(0, shape_yx[1])))]
        for _ in self.levels_yx[1:]:
            self._levels.append(halve(self._levels[-1]))

    def read(self, level: int, rows: slice, columns: slice) -> NDArray:
        return self._levels[level][rows, columns]

    def close(self) -> None:
        self._levels.clear()


class UprightLevels(Levels):
    """Of a picture that is stored in another ``orientation`` (TIFF tag 274), turned upright."""

    def __init__(self, stored: Levels, orientation: int) -> None:
        self._stored, self._orientation = stored, orientation
        self.levels_yx = [turned_shape(shape_yx, orientation) for shape_yx in stored.levels_yx]

    def read(self, level: int, rows: slice, columns: slice) -> NDArray:
        read = partial(self._stored.read, level)
        return turned(read, self._stored.levels_yx[level], self._orientation)(rows, columns)

    def close(self) -> None:
        self._stored.close()


def _eight_bit(samples: NDArray) -> NDArray[np.uint8]:
    samples = samples if samples.ndim == 3 else np.repeat(samples[..., None], 3, axis=2)
    if samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.asarray(samples, np.uint8)
