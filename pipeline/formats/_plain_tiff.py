"""A picture as one plain tiled TIFF, for libraries that read files and not windows.

Its tiles are not compressed, so that each has a fixed position: any thread writes any tile, a disk error is a Python
exception, and memory holds a few windows. The file is as large as the picture's samples.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from pipeline.formats._staging import to_uint8, window
from pipeline.formats.picture import OutputImage
from pipeline.support.ordered_map import OrderedThreadMap

TILE_PX = 512
_WINDOW_COLUMNS = 4 * TILE_PX
_CLASSIC_MAX_BYTES = 3_900_000_000


def windows(shape_yx: tuple[int, int], rows: int = TILE_PX, columns: int = _WINDOW_COLUMNS) -> Iterator[Any]:
    """Slices of every window of ``rows`` x ``columns``, in raster order."""
    for y in range(0, shape_yx[0], rows):
        for x in range(0, shape_yx[1], columns):
            yield slice(y, min(y + rows, shape_yx[0])), slice(x, min(x + columns, shape_yx[1]))


def write_plain(
    path: Path,
    picture: OutputImage,
    threads: int,
    *,
    depth: str = "",
    channels: int = 0,
    tags: Mapping[str, Any] | None = None,
) -> None:
    """Write the samples of ``picture`` to ``path``, which does not exist yet.

    Parameters
    ----------
    depth : "uint8" to reduce 16 bits to 8
    channels : 3 to leave alpha out
    tags : further arguments of ``tifffile.TiffWriter.write``

    Raises
    ------
    OSError : the disk or its permissions
    """
    dtype, channels = np.dtype(depth or picture.dtype), channels or picture.channels
    # libvips reports a tile that is far larger than the picture as damage.
    tile_yx = [min(TILE_PX, -(-extent // 16) * 16) for extent in picture.shape_yx]
    across = -(-picture.shape_yx[1] // tile_yx[1])
    tile_bytes = tile_yx[0] * tile_yx[1] * channels * dtype.itemsize
    start = _write_header(path, (*picture.shape_yx, channels), dtype, tile_yx, tags or {})

    def copy(place: tuple[slice, slice]) -> None:
        rows, columns = place
        samples = window(picture, rows, columns)[..., :channels]
        samples = to_uint8(samples) if dtype == np.uint8 else samples
        samples = samples.astype(dtype.newbyteorder("<"), copy=False)
        for x in range(0, samples.shape[1], tile_yx[1]):
            tile = samples[:, x : x + tile_yx[1]]
            missing_yx = [side - extent for side, extent in zip(tile_yx, tile.shape[:2], strict=True)]
            tile = np.pad(tile, [(0, missing_yx[0]), (0, missing_yx[1]), (0, 0)])
            index = rows.start // tile_yx[0] * across + (columns.start + x) // tile_yx[1]
            _write_at(file, tile.tobytes(), start + index * tile_bytes)

    file = os.open(path, os.O_RDWR)
    try:
        with OrderedThreadMap(threads) as pool:
            for _ in pool.map(copy, windows(picture.shape_yx)):
                pass
    finally:
        os.close(file)


def _write_header(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype, tile_yx: list[int], tags: Mapping[str, Any]
) -> int:
    """Write everything but the samples of (h, w, channels); the offset of the first tile, which the others follow."""
    padded_yx = [-(-extent // side) * side for extent, side in zip(shape[:2], tile_yx, strict=True)]
    big = padded_yx[0] * padded_yx[1] * shape[2] * dtype.itemsize > _CLASSIC_MAX_BYTES
    with tifffile.TiffWriter(path, bigtiff=big, byteorder="<") as tiff:
        tiff.write(
            None,
            shape=shape,
            dtype=dtype,
            photometric="rgb",
            extrasamples=["unassalpha"] if shape[2] == 4 else [],
            tile=tuple(tile_yx),
            metadata=None,
            **{"software": False, **tags},
        )
    with tifffile.TiffFile(path) as file:
        return int(file.pages[0].dataoffsets[0])


def _write_at(file: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while left:
        count = os.pwrite(file, left, offset)
        left, offset = left[count:], offset + count
