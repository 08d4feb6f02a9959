"""Tiled, compressed, pyramidal TIFF, written top to bottom in one pass with flat memory, however wide the picture is.

Level 0 is the main image; each further level is half the one above and hangs from it as a SubIFD (Adobe Photoshop TIFF
Technical Notes, 2002: where Bio-Formats, QuPath, libvips and GDAL look for it).

A level is cut into segments of about a megapixel. Each is one task of a small pool: read, halve, encode its tiles. The
halves go to an unnamed temporary file beside the result, from which the next level is then streamed. A few segments are
all that memory ever holds.

Tiles lie in the file in raster order, but segments are two tiles tall: segments of one would make a store of 512-pixel
chunks decode every chunk twice. Where a picture is several segments wide, the encoded tiles of the lower row wait, in
memory or on disk, until the upper row is out.

Compression is deflate by ISA-L, the fastest there is: on a coloured 8-bit photograph, 4.9 ns a pixel where libdeflate's
fastest level takes 11, for 7 % more bytes. Its bytes, not the pixels in them, may differ between kinds of processor.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from isal import isal_zlib
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.files import writing
from pipeline.ordered import OrderedPool
from pipeline.spill import Spill
from pipeline.writers._picture import SRGB_PROFILE, Picture, ReadWindow, Written

ENDING = ".color.tif"

_SEGMENT_PX = 2**20  # composing takes about 20 bytes a pixel, and several segments are worked on at once
_SEGMENT_ROWS = 512
_HELD_BYTES = 8 * 2**20  # of encoded tiles that wait for their turn in memory; the rest waits on disk
_CLASSIC_MAX_BYTES = 3_900_000_000  # of 2**32; the rest is for tags and for tiles that compression makes larger
_DEFLATE_LEVEL = 2
_COMPRESSION: dict[str, dict[str, Any]] = {
    "deflate": {"compression": "adobe_deflate", "predictor": True},
    "none": {},
}
_RESOLUTION_UNITS = {"none": 1, "inch": 2, "in": 2, "centimeter": 3, "cm": 3, 1: 1, 2: 2, 3: 3}


@dataclass(frozen=True)
class TiffMetadata:
    """What is written beside the pixels. No time stamp: the same scan gives the same bytes.

    Attributes
    ----------
    software, description : any text, stored as UTF-8; left out where empty
    resolution : x, y in pixels per unit, and the unit: "none", "inch" or "centimeter", or TIFF's number for it (1-3)
    orientation : TIFF tag 274, 1-8
    xmp : an XMP packet, tag 700; left out where empty
    icc : an ICC profile, tag 34675; that of sRGB, which the samples are encoded in, unless another is given
    """

    software: str = ""
    description: str = ""
    resolution: tuple[float, float, str | int] | None = None
    orientation: int | None = None
    xmp: bytes = b""
    icc: bytes = SRGB_PROFILE

    def __post_init__(self) -> None:
        if self.resolution is not None and _unit_key(self.resolution[2]) not in _RESOLUTION_UNITS:
            raise UsageError(f"resolution unit {self.resolution[2]!r}: TIFF has none, inch and centimeter; convert it")
        if self.orientation is not None and not 1 <= self.orientation <= 8:
            raise UsageError(f"orientation {self.orientation}: TIFF has 1 to 8; leave it out if it is not known")


@dataclass(frozen=True)
class PyramidSummary:
    """What was written: rows and columns of each level, largest first; the file's size; whether it is a BigTIFF."""

    levels_yx: tuple[tuple[int, int], ...]
    size_bytes: int
    bigtiff: bool


def write(path: Path, picture: Picture, threads: int) -> Written:
    """Write ``path``; as :func:`write_pyramid`."""
    tiff = TiffMetadata(
        software=picture.software,
        description=picture.description,
        resolution=picture.resolution,
        orientation=picture.orientation,
        xmp=picture.carried.xmp,
        icc=picture.carried.icc,
    )
    made = write_pyramid(path, picture.shape_yx, picture.dtype, picture.read_window, metadata=tiff, threads=threads)
    return Written(made.levels_yx, made.size_bytes)


def pyramid_levels(shape_yx: tuple[int, int], tile_px: int) -> tuple[tuple[int, int], ...]:
    """Shapes from ``shape_yx`` down, each half the last (rounded up), to the first that fits one tile.

    >>> pyramid_levels((700, 3), 256)
    ((700, 3), (350, 2), (175, 1))
    """
    levels = [shape_yx]
    while max(levels[-1]) > tile_px:
        height, width = levels[-1]
        levels.append(((height + 1) // 2, (width + 1) // 2))
    return tuple(levels)


def segment_yx(width: int, tile_px: int) -> tuple[int, int]:
    """Rows and columns of the segments that a level is read in: whole tiles, about a megapixel at most.

    >>> segment_yx(700, 256), segment_yx(100_000, 256)
    ((512, 700), (512, 2048))
    """
    rows = max(_SEGMENT_ROWS // tile_px, 1) * tile_px
    columns = max(_SEGMENT_PX // rows // tile_px, 1) * tile_px
    return rows, min(columns, width)


def is_bigtiff_needed(shape_yx: tuple[int, int], dtype: np.dtype, tile_px: int) -> bool:
    """Whether the uncompressed tiles of all levels come near the 4 GiB that a classic TIFF can address."""
    tiles = sum(-(-height // tile_px) * -(-width // tile_px) for height, width in pyramid_levels(shape_yx, tile_px))
    return tiles * tile_px**2 * 3 * np.dtype(dtype).itemsize > _CLASSIC_MAX_BYTES


def halve(samples: NDArray) -> NDArray:
    """Mean of each 2 x 2 of (h, w, 3) samples, rounded; at an odd edge, of the pixels that are there."""
    height, width = samples.shape[:2]
    if height % 2 or width % 2:
        # An edge pixel met twice leaves the mean of its pair (or itself) unchanged.
        samples = cv2.copyMakeBorder(samples, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    half: NDArray = cv2.resize(samples, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
    return half


def write_pyramid(
    path: Path,
    shape_yx: tuple[int, int],
    dtype: np.dtype,
    read_window: ReadWindow,
    *,
    tile_px: int = 256,
    compression: str = "deflate",
    metadata: TiffMetadata | None = None,
    threads: int = 2,
) -> PyramidSummary:
    """Write ``path``, which appears only when it is complete; whatever goes wrong, an older file stays as it was.

    Parameters
    ----------
    shape_yx : rows, columns of the image
    dtype : uint8 or uint16
    read_window : called once for each segment, with a slice of rows and one of columns, both starting at a multiple of
        ``tile_px``; returns (h, w, 3) RGB samples of ``dtype``. Segments follow each other in raster order, and no
        pixel is asked for twice. With ``threads`` above 1 it is called from that many threads at once. What it raises
        is passed on unchanged.
    tile_px : side of a tile, a multiple of 16
    compression : "deflate" (with horizontal predictor) or "none"
    threads : that read and encode segments; the bytes written do not depend on it

    Raises
    ------
    OutputError : the file cannot be written: disk full, permissions
    UsageError : an argument makes no sense, or a window has another shape or type than announced
    """
    if min(shape_yx) < 1 or compression not in _COMPRESSION or tile_px < 16 or tile_px % 16:
        raise UsageError(
            f"image of {shape_yx} pixels, tile {tile_px}, compression {compression!r}: cannot be a TIFF; "
            f"take at least one pixel, a multiple of 16 and one of {', '.join(_COMPRESSION)}"
        )
    pyramid = _Pyramid(shape_yx, np.dtype(dtype), tile_px, compression, threads)
    part = path.with_name(f"{path.name}.part")
    with writing(path):
        try:
            with part.open("w+b") as stream:
                pyramid.write(stream, path.parent, read_window, metadata or TiffMetadata())
                stream.flush()
                os.fsync(stream.fileno())
            size_bytes = part.stat().st_size
            os.replace(part, path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            if not isinstance(error, _WindowError):
                raise
            window_error = error
        else:
            return PyramidSummary(pyramid.levels, size_bytes, pyramid.bigtiff)
    # Outside of "writing", so that an OSError met while reading is not taken for one met while writing.
    raise window_error.reason


class _WindowError(Exception):
    """Carries what ``read_window`` raised past the handlers of what writing raises."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class _Segment:
    """One segment, encoded: its tiles by tile row, and its half for the next level (None on the last)."""

    tiles: list[list[bytes]]
    half: NDArray | None


@dataclass(frozen=True)
class _Pyramid:
    shape_yx: tuple[int, int]
    dtype: np.dtype
    tile_px: int
    compression: str
    threads: int

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        return pyramid_levels(self.shape_yx, self.tile_px)

    @property
    def bigtiff(self) -> bool:
        return is_bigtiff_needed(self.shape_yx, self.dtype, self.tile_px)

    def write(self, stream: Any, folder: Path, read_window: ReadWindow, metadata: TiffMetadata) -> None:
        """Write the whole file into ``stream``; temporary files go to ``folder``."""
        with contextlib.ExitStack() as stack:
            tiff = stack.enter_context(tifffile.TiffWriter(stream, bigtiff=self.bigtiff))
            spills = [
                stack.enter_context(Spill(folder, (*level_yx, 3), self._half_columns(above_yx), self.dtype))
                for above_yx, level_yx in itertools.pairwise(self.levels)
            ]
            # Entered last, left first: no segment is still being read when the files are closed.
            pool = stack.enter_context(OrderedPool(self.threads))
            read = self._checked(read_window)
            for index, level_yx in enumerate(self.levels):
                spill = spills[index] if index < len(spills) else None
                tags = {"subfiletype": 1, "software": False} if index else self._main_tags(metadata)
                with _Tiles(folder, level_yx, self.tile_px) as tiles:
                    self._write_level(tiff, level_yx, tiles.in_order(self._segments(read, level_yx, spill, pool)), tags)
                if spill is not None:
                    read = spill.read

    def _half_columns(self, level_yx: tuple[int, int]) -> int:
        return (segment_yx(level_yx[1], self.tile_px)[1] + 1) // 2

    def _checked(self, read_window: ReadWindow) -> ReadWindow:
        def read(rows: slice, columns: slice) -> NDArray:
            try:
                window = read_window(rows, columns)
            except Exception as error:
                raise _WindowError(error) from error
            expected = (rows.stop - rows.start, columns.stop - columns.start, 3)
            if window.shape != expected or window.dtype != self.dtype:
                raise UsageError(
                    f"rows {rows.start}-{rows.stop}, columns {columns.start}-{columns.stop}: {window.dtype} "
                    f"{window.shape} where {self.dtype} {expected} was announced, the picture would be sheared; "
                    "return one window as asked"
                )
            return window

        return read

    def _segments(
        self, read: ReadWindow, level_yx: tuple[int, int], spill: Spill | None, pool: OrderedPool
    ) -> Iterator[_Segment]:
        """Every segment of a level in raster order, encoded; its half is in ``spill`` when it is handed out."""

        def encode(window: tuple[slice, slice]) -> _Segment:
            samples = read(*window)
            return _Segment(self._encoded(samples), None if spill is None else halve(samples))

        windows = _windows(level_yx, segment_yx(level_yx[1], self.tile_px))
        for (rows, columns), segment in pool.map(encode, windows):
            if spill is not None and segment.half is not None:
                spill.write(rows.start // 2, columns.start // 2, segment.half)
            yield segment

    def _encoded(self, samples: NDArray) -> list[list[bytes]]:
        side = self.tile_px
        height, width = samples.shape[:2]
        return [
            [self._encoded_tile(samples[y : y + side, x : x + side]) for x in range(0, width, side)]
            for y in range(0, height, side)
        ]

    def _encoded_tile(self, samples: NDArray) -> bytes:
        missing_yx = [self.tile_px - extent for extent in samples.shape[:2]]
        if any(missing_yx):
            samples = np.pad(samples, ((0, missing_yx[0]), (0, missing_yx[1]), (0, 0)))
        if self.compression == "none":
            return samples.tobytes()
        return bytes(isal_zlib.compress(_differences(samples), _DEFLATE_LEVEL))

    def _main_tags(self, metadata: TiffMetadata) -> dict[str, Any]:
        tags: dict[str, Any] = {"subifds": len(self.levels) - 1, "software": _text(metadata.software) or False}
        if metadata.description:
            tags["description"] = _text(metadata.description)
        if metadata.resolution is not None:
            tags["resolution"] = metadata.resolution[:2]
            tags["resolutionunit"] = _RESOLUTION_UNITS[_unit_key(metadata.resolution[2])]
        extra: list[tuple[Any, ...]] = (
            [] if metadata.orientation is None else [(274, "H", 1, metadata.orientation, True)]
        )
        extra += [(700, "B", len(metadata.xmp), metadata.xmp, True)] if metadata.xmp else []
        tags["extratags"], tags["iccprofile"] = extra, metadata.icc
        return tags

    def _write_level(
        self, tiff: tifffile.TiffWriter, level_yx: tuple[int, int], tiles: Iterator[bytes], tags: dict[str, Any]
    ) -> None:
        tiff.write(
            tiles,
            shape=(*level_yx, 3),
            dtype=self.dtype,
            photometric="rgb",
            tile=(self.tile_px, self.tile_px),
            metadata=None,
            **_COMPRESSION[self.compression],
            **tags,
        )


def _differences(samples: NDArray) -> NDArray:
    """TIFF's horizontal predictor (TIFF 6.0, section 14): (h, w * 3) differences to the pixel on the left."""
    flat = np.ascontiguousarray(samples).reshape(samples.shape[0], -1)
    differences = np.empty_like(flat)
    differences[:, :3] = flat[:, :3]
    np.subtract(flat[:, 3:], flat[:, :-3], out=differences[:, 3:])
    return differences


class _Tiles:
    """Encoded tiles of a level, brought from the order of segments into raster order."""

    def __init__(self, folder: Path, level_yx: tuple[int, int], tile_px: int) -> None:
        rows, columns = segment_yx(level_yx[1], tile_px)
        self._across = -(-level_yx[1] // columns)
        waiting = rows // tile_px - 1 if self._across > 1 else 0
        self._queues = [_Queue(folder, _HELD_BYTES // waiting) for _ in range(waiting)]

    def __enter__(self) -> _Tiles:
        return self

    def __exit__(self, *_: object) -> None:
        for queue in self._queues:
            queue.close()

    def in_order(self, segments: Iterator[_Segment]) -> Iterator[bytes]:
        """The tiles of all segments, row by row from left to right."""
        for count, segment in enumerate(segments, 1):
            if self._across == 1:
                yield from itertools.chain.from_iterable(segment.tiles)
                continue
            yield from segment.tiles[0]
            for queue, tiles in zip(self._queues, segment.tiles[1:], strict=False):
                queue.put(tiles)
            if count % self._across == 0:
                for queue in self._queues:
                    yield from queue.drain()


class _Queue:
    """Byte strings that wait, first in, first out; beyond ``limit_bytes`` in a nameless file."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=limit_bytes, dir=str(folder))  # noqa: SIM115
        self._sizes: list[int] = []

    def put(self, items: list[bytes]) -> None:
        self._file.writelines(items)
        self._sizes += map(len, items)

    def drain(self) -> Iterator[bytes]:
        """Everything that was put, once; the queue is empty afterwards."""
        self._file.seek(0)
        for size in self._sizes:
            item = self._file.read(size)
            if len(item) != size:
                raise OSError("a temporary file was cut short")
            yield item
        self._sizes.clear()
        self._file.seek(0)
        self._file.truncate()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


def _windows(shape_yx: tuple[int, int], segment_yx: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each segment, in raster order."""
    (height, width), (tall, wide) = shape_yx, segment_yx
    for y in range(0, height, tall):
        for x in range(0, width, wide):
            yield slice(y, min(y + tall, height)), slice(x, min(x + wide, width))


def _text(text: str) -> bytes:
    # A TIFF string ends at its first NUL; unpaired surrogates come from file names that are not UTF-8.
    return text.replace("\0", " ").encode("utf-8", "backslashreplace")


def _unit_key(unit: str | int) -> str | int:
    return unit.lower() if isinstance(unit, str) else int(unit)
