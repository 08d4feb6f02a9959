"""Tiled, compressed, pyramidal TIFF, written top to bottom in one pass, in constant memory whatever the width.

Level 0 is the main image; each further level is half the one above and hangs from it as a SubIFD (Adobe Photoshop TIFF
Technical Notes, 2002: where Bio-Formats, QuPath, libvips and GDAL look for it).

A level is cut into segments of about a megapixel. Each is one task of a small pool: read, halve, encode its tiles. The
halves go to an unnamed temporary file beside the result, from which the next level is then streamed. Memory holds only
a few segments.

Tiles are in the file in raster order, but segments are two tiles tall: with segments of one, a store of 512-pixel
chunks would decode every chunk twice. If a picture is several segments wide, the encoded tiles of the lower row wait,
in memory or on disk, until the upper row is written.

Compression is deflate by libdeflate at a low level: higher ones take longer than they save, and of 16-bit samples they
leave as much as the lowest (python -m tests.benchmarks.compression). ISA-L is faster and also lossless, but its bytes
differ between kinds of processor and occasionally, for unknown reasons, between two runs on one.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.endings import FORMATS as ENDINGS
from pipeline.endings import PART
from pipeline.errors import UsageError
from pipeline.formats._format import Format
from pipeline.formats._plain_tiff import windows
from pipeline.formats._pyramid import halve, pyramid_levels
from pipeline.formats._staging import window, writing_picture
from pipeline.formats._tiff_format import TiffFormat
from pipeline.formats._tiff_tags import append_directories, check_tags, tags_of
from pipeline.formats.picture import OutputImage, ReadWindow, WriteReport
from pipeline.support.ordered_map import OrderedThreadMap
from pipeline.support.scratch import ScratchRaster

_SEGMENT_PX = 2**20  # composing takes about 20 bytes per pixel, for several segments at once
_SEGMENT_ROWS = 512
_HELD_BYTES = 8 * 2**20  # for encoded tiles that wait in memory; the rest waits on disk
_CLASSIC_MAX_BYTES = 3_900_000_000  # out of 2**32; the rest is for tags and for tiles that compression enlarges
_DEFLATE_LEVELS = {1: 2, 2: 1}  # by bytes of a sample
_COMPRESSION: dict[str, dict[str, Any]] = {
    "deflate": {"compression": "adobe_deflate", "predictor": True},
    "none": {},
}


class Tiff(TiffFormat):
    """The default format: lossless, pyramidal, in one file, with all metadata of the scan."""

    ENDING = ENDINGS["tiff"]
    OVERVIEW_COST = 1
    SIGNED_AS = "image/tiff"

    def write(self, path: Path, picture: OutputImage, threads: int) -> WriteReport:
        """Write ``path``; as :func:`write_pyramid`."""
        return write_pyramid(path, picture, threads=threads)


FORMAT: Format = Tiff()


def segment_yx(width: int, tile_px: int) -> tuple[int, int]:
    """Rows and columns of the segments in which a level is read: whole tiles, about a megapixel at most.

    >>> segment_yx(700, 256), segment_yx(100_000, 256)
    ((512, 700), (512, 2048))
    """
    rows = max(_SEGMENT_ROWS // tile_px, 1) * tile_px
    columns = max(_SEGMENT_PX // rows // tile_px, 1) * tile_px
    return rows, min(columns, width)


def is_bigtiff_needed(shape_yx: tuple[int, int], dtype: np.dtype, tile_px: int, channels: int = 3) -> bool:
    """True if the uncompressed tiles of all levels come near the 4 GiB that a classic TIFF can address."""
    tiles = sum(-(-height // tile_px) * -(-width // tile_px) for height, width in pyramid_levels(shape_yx, tile_px))
    return tiles * tile_px**2 * channels * np.dtype(dtype).itemsize > _CLASSIC_MAX_BYTES


def write_pyramid(
    path: Path, picture: OutputImage, *, tile_px: int = 256, compression: str = "deflate", threads: int = 2
) -> WriteReport:
    """Write ``path``, which appears only when it is complete; on any error, an existing file stays unchanged.

    ``picture.read_window`` is called once for each segment, with slices that start at a multiple of ``tile_px``, in
    raster order; no pixel is requested twice.

    Parameters
    ----------
    tile_px : side of a tile, a multiple of 16
    compression : "deflate" (with horizontal predictor) or "none"
    threads : number of threads that read and encode segments, each calling ``read_window``; does not change the bytes

    Raises
    ------
    OutputError : the file cannot be written: disk full, permissions
    UsageError : an argument is invalid, or a window has another shape or type than announced
    """
    if min(picture.shape_yx) < 1 or compression not in _COMPRESSION or tile_px < 16 or tile_px % 16:
        raise UsageError(
            f"image of {picture.shape_yx} pixels, tile {tile_px}, compression {compression!r}: cannot be a TIFF; "
            f"take at least one pixel, a multiple of 16 and one of {', '.join(_COMPRESSION)}"
        )
    if picture.channels not in (3, 4) or (picture.channels == 4 and picture.nodata is not None):
        raise UsageError(
            f"image of {picture.channels} channels with nodata {picture.nodata}: not written, readers would disagree "
            "on where it is transparent; take 3 channels, or 4 without nodata"
        )
    check_tags(picture)
    pyramid = _Pyramid(picture, tile_px, compression, threads)
    part = path.with_name(path.name + PART)
    with writing_picture(path):
        try:
            with part.open("w+b") as stream:
                not_carried = pyramid.write(stream, path.parent)
                stream.flush()
                os.fsync(stream.fileno())
            size_bytes = part.stat().st_size
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
    return WriteReport(pyramid.levels, size_bytes, not_carried)


@dataclass(frozen=True)
class _Segment:
    """One encoded segment: its tiles by tile row, and its half-size copy for the next level (None on the last)."""

    tiles: list[list[bytes]]
    half: NDArray | None


@dataclass(frozen=True)
class _Pyramid:
    picture: OutputImage
    tile_px: int
    compression: str
    threads: int

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.picture.dtype)

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        return pyramid_levels(self.picture.shape_yx, self.tile_px)

    @property
    def bigtiff(self) -> bool:
        return is_bigtiff_needed(self.picture.shape_yx, self.dtype, self.tile_px, self.picture.channels)

    def write(self, stream: Any, folder: Path) -> dict[str, str]:
        """Write the whole file into ``stream``; temporary files go to ``folder``. Returns what is not carried."""
        tags = tags_of(self.picture, self.bigtiff)
        with contextlib.ExitStack() as stack:
            tiff = stack.enter_context(tifffile.TiffWriter(stream, bigtiff=self.bigtiff, byteorder="<"))
            spills = [
                stack.enter_context(
                    ScratchRaster(folder, (*level_yx, self.picture.channels), self._half_columns(above_yx), self.dtype)
                )
                for above_yx, level_yx in itertools.pairwise(self.levels)
            ]
            # Entered last, so closed first: no segment is still being read when the files are closed.
            pool = stack.enter_context(OrderedThreadMap(self.threads))
            read: ReadWindow = functools.partial(window, self.picture)
            for index, level_yx in enumerate(self.levels):
                spill = spills[index] if index < len(spills) else None
                smaller = {"subfiletype": 1, "software": False, "extratags": tags.every}
                options = smaller if index else {"subifds": len(self.levels) - 1, **tags.options}
                with _Tiles(folder, level_yx, self.tile_px) as tiles:
                    segments = self._segments(read, level_yx, spill, pool)
                    self._write_level(tiff, level_yx, tiles.in_order(segments), options)
                if spill is not None:
                    read = spill.read
        append_directories(stream, tags.exif, self.bigtiff)
        return tags.not_carried

    def _half_columns(self, level_yx: tuple[int, int]) -> int:
        return (segment_yx(level_yx[1], self.tile_px)[1] + 1) // 2

    def _segments(
        self, read: ReadWindow, level_yx: tuple[int, int], spill: ScratchRaster | None, pool: OrderedThreadMap
    ) -> Iterator[_Segment]:
        """Every segment of a level in raster order, encoded; its half is in ``spill`` by the time it is yielded."""

        def encode(place: tuple[slice, slice]) -> _Segment:
            samples = read(*place)
            return _Segment(self._encoded(samples), None if spill is None else halve(samples, self.picture.nodata))

        places = windows(level_yx, *segment_yx(level_yx[1], self.tile_px))
        for (rows, columns), segment in pool.map(encode, places):
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
        return deflated(samples, _DEFLATE_LEVELS.get(samples.itemsize, 1))

    def _write_level(
        self, tiff: tifffile.TiffWriter, level_yx: tuple[int, int], tiles: Iterator[bytes], tags: dict[str, Any]
    ) -> None:
        tiff.write(
            tiles,
            shape=(*level_yx, self.picture.channels),
            dtype=self.dtype,
            photometric="rgb",
            planarconfig="contig",
            extrasamples=["unassalpha"] if self.picture.channels == 4 else None,
            tile=(self.tile_px, self.tile_px),
            metadata=None,
            **_COMPRESSION[self.compression],
            **tags,
        )


def deflated(samples: NDArray, level: int) -> bytes:
    """A tile (h, w, channels) as TIFF holds it with predictor 2 and deflate at ``level``, 1 to 12."""
    return bytes(imagecodecs.deflate_encode(_differences(samples).tobytes(), level=level))


def _differences(samples: NDArray) -> NDArray:
    """TIFF's horizontal predictor (TIFF 6.0, section 14): (h, w * channels) differences to the pixel on the left."""
    channels = samples.shape[2]
    flat = np.ascontiguousarray(samples).reshape(samples.shape[0], -1)
    differences = np.empty_like(flat)
    differences[:, :channels] = flat[:, :channels]
    np.subtract(flat[:, channels:], flat[:, :-channels], out=differences[:, channels:])
    return differences


class _Tiles:
    """Encoded tiles of a level, reordered from segments into raster order."""

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
    """A first-in, first-out queue of byte strings; beyond ``limit_bytes`` they wait in an unnamed file."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=limit_bytes, dir=str(folder))  # noqa: SIM115
        self._sizes: list[int] = []

    def put(self, items: list[bytes]) -> None:
        self._file.writelines(items)
        self._sizes += map(len, items)

    def drain(self) -> Iterator[bytes]:
        """Yield everything that was put; the queue is empty afterwards."""
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
