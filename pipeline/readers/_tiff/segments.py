"""Windows of the samples of one TIFF directory, as they are stored, decoded one strip or tile at a time."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.errors import ScanDamagedError, ScanUnreadableError, ScanUnsupportedError
from pipeline.readers._base import SegmentCache
from pipeline.readers._tiff import gdal
from pipeline.readers._tiff.embedded import check_embedded_size, unwrapped
from pipeline.readers._tiff.layout import JPEG_COMPRESSIONS, UNPLANNED_LIMIT_BYTES, Layout, layout_of, stored_dtype
from pipeline.readers._tiff.partial import first_runs, is_partial, whole_rows
from pipeline.support.gdal import CACHE_BYTES
from pipeline.support.row_bands import STRIP_PX, row_strips

_NATIVE = "<" if sys.byteorder == "little" else ">"
_AT_ONCE = 4  # threads of an ingest


class Segments:
    """The strips or tiles of one directory that hold these channels; safe to use from several threads.

    Attributes
    ----------
    layout : positions of the segments
    dtype : type of the samples as stored, in whole bytes
    """

    def __init__(
        self,
        path: Path,
        page: tifffile.TiffPage,
        channels: tuple[int, ...],
        file_lock: threading.Lock,
        cache: SegmentCache,
        *,
        salvage: bool = False,
    ) -> None:
        self._page = page
        self._file = page.parent.filehandle
        self._file_lock = file_lock
        self._cache = cache
        self._salvage = salvage
        self._rows_left: dict[int, int] = {}  # complete rows of truncated strips, as far as these were decoded
        self._gdal: gdal.GdalSegments | None = None
        if gdal.is_for_gdal(page):
            self._gdal = gdal.GdalSegments(path, page)
            self.layout = _whole_blocks(page, self._gdal.size_yx)
            self.dtype = np.dtype(np.uint8)
        else:
            self.layout = layout_of(page, self._file.size, channels, salvage=salvage)
            self.dtype = stored_dtype(page)
            self._decode = page.decode  # built here: building it is not safe from several threads

    @property
    def decoder_bytes(self) -> int:
        """Memory of the segments that several threads decode at once: each as stored, and decoded."""
        layout, decoded = self.layout, self._segment_bytes
        stored = min(decoded, int(layout.byte_counts.max(initial=0)))
        at_once = min(_AT_ONCE, math.prod(layout.grid_yx) * layout.planes)
        cut = self._salvage and bool((layout.byte_offsets + layout.byte_counts > self._file.size).any())
        at_once += 2 * cut  # a truncated strip is held padded to full size and once more
        return int(at_once * (decoded + stored)) + (CACHE_BYTES if self._gdal is not None else 0)

    @property
    def missing(self) -> tuple[str, ...]:
        """A note on the segments that a sparse file leaves out."""
        if not self.layout.sparse:
            return ()
        per_plane = self.layout.byte_counts.reshape(self.layout.planes, -1)
        count, name = int((per_plane == 0).all(axis=0).sum()), "tile" if self._page.is_tiled else "strip"
        return (f"{count} of {per_plane.shape[1]} {name}s (left out of the file as empty: no data)",) * bool(count)

    @property
    def _per_pixel(self) -> int:
        """Samples per pixel in one segment."""
        return 1 if self.layout.planes > 1 else int(self._page.samplesperpixel)

    @property
    def _segment_bytes(self) -> int:
        return int(math.prod(self.layout.size_yx) * self._per_pixel * self.dtype.itemsize)

    def check_unplanned(self) -> None:
        """Refuse segments that are too large to decode before the run's memory is planned."""
        page = self._page
        as_decoded = page.parent.byteorder == _NATIVE and page.predictor in (1, 2)
        as_decoded &= page.bitspersample == 8 * self.dtype.itemsize
        copies = 1 if as_decoded and page.compression not in tifffile.TIFF.IMAGE_COMPRESSIONS else 2
        if copies * self._segment_bytes > UNPLANNED_LIMIT_BYTES:
            height, width = self.layout.size_yx
            raise ScanUnsupportedError(
                f"one segment holds {width} x {height} samples of {page.bitspersample} bits, which must be decoded at "
                "once to find their range; rewrite it in tiles"
            )

    def close(self) -> None:
        if self._gdal is not None:
            self._gdal.close()

    def read(self, rows: range, columns: range, channels: tuple[int, ...], filling: Any = 0) -> NDArray:
        """(h, w, len(channels)) samples; ``filling`` where a sparse file has no segment."""
        layout = self.layout
        tall, wide = layout.size_yx
        stored = np.empty((len(rows), len(columns), len(channels)), dtype=self.dtype)
        for row, column in self._touched(rows, columns):
            y0, y1 = max(rows.start, row * tall), min(rows.stop, row * tall + tall)
            x0, x1 = max(columns.start, column * wide), min(columns.stop, column * wide + wide)
            into = stored[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start]
            part = slice(y0 - row * tall, y1 - row * tall), slice(x0 - column * wide, x1 - column * wide)
            if layout.planes == 1:
                found = self._part(0, row, column, part)
                into[:] = filling if found is None else _picked(found, channels)
                continue
            for at, channel in enumerate(channels):
                found = self._part(channel, row, column, part)
                into[:, :, at] = filling if found is None else found[:, :, 0]
        return stored

    def _part(self, plane: int, row: int, column: int, part: tuple[slice, slice]) -> NDArray | None:
        """The ``part`` of a segment; None where a sparse file has no segment."""
        index, segment = self.layout.index(plane, row, column), None
        if part[0].stop <= self._rows_left.get(index, part[0].stop):
            segment = self._segment(plane, row, column)
            if segment is None or part[0].stop <= len(segment):
                return None if segment is None else segment[part]
        left = self._rows_left.get(index, 0)
        raise ScanDamagedError(f"cut off: {self._where(row, column)} ends after {left} rows; copy it again")

    def breaks(self, rows: range) -> list[int]:
        """Rows at which truncated strips end, among the strips that ``rows`` touches."""
        found = set()
        for row, _ in self._touched(rows, range(1)):
            for plane in range(self.layout.planes):
                if not self._is_partial(plane, row, 0):
                    continue
                index = self.layout.index(plane, row, 0)
                if index not in self._rows_left:
                    with contextlib.suppress(Exception):  # reading the rows raises it again
                        self._segment(plane, row, 0)
                found.add(row * self.layout.size_yx[0] + self._rows_left.get(index, 0))
        return sorted(at for at in found if rows.start < at < rows.stop)

    def present(self, rows: range, columns: range) -> NDArray[np.bool_]:
        """(h, w) False where a sparse file has no segment."""
        tall, wide = self.layout.size_yx
        there = np.ones((len(rows), len(columns)), bool)
        if self.layout.sparse:
            for row, column in self._touched(rows, columns):
                if not any(self.layout.extent(plane, row, column)[1] for plane in range(self.layout.planes)):
                    y0, x0 = max(rows.start, row * tall), max(columns.start, column * wide)
                    y1, x1 = min(rows.stop, row * tall + tall), min(columns.stop, column * wide + wide)
                    there[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start] = False
        return there

    def there(self) -> Iterator[tuple[int, int]]:
        """Grid row and column of each segment that the file holds completely, in raster order; in salvage, also of
        truncated ones."""
        height, width = self.layout.shape_yx
        for row, column in self._touched(range(height), range(width)):
            offset, count = self.layout.extent(0, row, column)
            is_whole = count > 0 and 0 <= offset <= self._file.size - count
            if is_whole or self._is_partial(0, row, column):
                yield row, column

    def pieces(self, row: int, column: int, channels: tuple[int, ...]) -> Iterator[NDArray]:
        """(h, w, channels) samples of a segment in the grid: views of small parts, so that no copy of it is made."""
        tall, wide = self.layout.covered_yx(row, column)
        planes = (0,) if self.layout.planes == 1 else channels
        for plane in planes:
            segment = self._segment(plane, row, column)
            if segment is None:
                continue
            samples = segment[:tall, :wide]
            for rows in row_strips(samples.shape):
                for first in range(0, wide, STRIP_PX):
                    block = rows, slice(first, first + STRIP_PX)
                    yield samples[block] if self.layout.planes > 1 else _picked(samples[block], channels)
            del segment, samples  # before the next is decoded

    def _touched(self, rows: range, columns: range) -> Iterator[tuple[int, int]]:
        tall, wide = self.layout.size_yx
        for row in range(rows.start // tall, (rows.stop - 1) // tall + 1):
            for column in range(columns.start // wide, (columns.stop - 1) // wide + 1):
                yield row, column

    def _segment(self, plane: int, row: int, column: int) -> NDArray | None:
        if self.layout.sparse and self.layout.extent(plane, row, column)[1] == 0:
            return None
        key = self._page.offset, self.layout.index(plane, row, column)
        return self._cache.get(key, lambda: self._decoded(plane, row, column))

    def _decoded(self, plane: int, row: int, column: int) -> NDArray:
        """(h, w, samples) of one segment, at least as large as the part of the picture that it holds.

        In salvage, a truncated strip gives its complete rows.
        """
        if self._gdal is not None:
            return self._gdal.decoded(row, column)
        layout = self.layout
        where, index = self._where(row, column), layout.index(plane, row, column)
        offset, count = layout.extent(plane, row, column)
        covered = layout.covered_yx(row, column)
        if self._is_partial(plane, row, column):
            data = self._encoded(offset, self._file.size - offset, where)
            rows = whole_rows(
                data, self._page, covered, self._per_pixel, lambda each: self._samples(each, index, where)
            )
            self._rows_left[index] = len(rows)
            return rows
        samples = self._samples(self._encoded(offset, count, where), index, where)
        if samples.shape[0] < covered[0] or samples.shape[1] < covered[1]:
            raise ScanDamagedError(
                f"damaged: {where} holds {samples.dtype} {samples.shape}, not what its tags declare; restore it"
            )
        return samples

    def _where(self, row: int, column: int) -> str:
        tall, wide = self.layout.size_yx
        return f"segment at row {row * tall}, column {column * wide}"

    def _is_partial(self, plane: int, row: int, column: int) -> bool:
        """True if a segment is truncated but some of its rows can be recovered."""
        layout, page = self.layout, self._page
        if not self._salvage or self._gdal is not None or page.is_tiled or layout.row_bytes is not None:
            return False
        offset, count = layout.extent(plane, row, column)
        return 0 <= offset < self._file.size < offset + count and is_partial(int(page.compression))

    def _samples(self, data: bytes, index: int, where: str) -> NDArray:
        page = self._page
        if not page.jpegheader:
            data = unwrapped(data, page.compression, self._segment_bytes, where)
            check_embedded_size(data, page.compression, self.layout.size_yx, where, self._per_pixel)
        tables: dict[str, Any] = {}
        if page.compression in JPEG_COMPRESSIONS:
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        try:
            samples: NDArray = np.asarray(self._decode(data, index, **tables)[0])[0]
        except imagecodecs.PackbitsError:
            samples = np.asarray(self._decode(first_runs(data, self._packed_bytes(index)), index)[0])[0]
        if samples.dtype == bool:
            samples = samples.view(np.uint8)
        if page.predictor == 2 and samples.dtype.kind == "u" and page.bitspersample < 8 * samples.itemsize:
            samples = samples & samples.dtype.type(2**page.bitspersample - 1)  # tifffile lets sums overflow
        if samples.dtype != self.dtype:
            raise ScanDamagedError(f"damaged: {where} holds {samples.dtype}, not {self.dtype}; restore it")
        return samples

    def _packed_bytes(self, index: int) -> int:
        """Bytes of a segment before compression."""
        (height, _), (tall, wide) = self.layout.shape_yx, self.layout.size_yx
        if not self._page.is_tiled:
            tall = min(tall, height - index % self.layout.grid_yx[0] * tall)
        return int(tall * -(-wide * self._per_pixel * int(self._page.bitspersample) // 8))

    def _encoded(self, offset: int, count: int, where: str) -> bytes:
        if count <= 0 or offset < 0:
            raise ScanUnreadableError(f"{where} was never written; scan or copy again")
        there = max(0, min(count, self._file.size - offset))
        if there < count:
            raise ScanDamagedError(f"cut off: {where} ends after {there} of {count} bytes; copy it again")
        with self._file_lock:
            self._file.seek(offset)
            data: bytes = self._file.read(count)
        if len(data) != count:
            raise ScanDamagedError(f"cut off: {where} ends after {len(data)} of {count} bytes; copy it again")
        return data


def _picked(samples: NDArray, channels: tuple[int, ...]) -> NDArray:
    if channels == tuple(range(len(channels))):
        return samples[:, :, : len(channels)]
    return samples[:, :, list(channels)]


def _whole_blocks(page: tifffile.TiffPage, size_yx: tuple[int, int]) -> Layout:
    """A layout of GDAL's blocks, without offsets, which only GDAL needs."""
    shape_yx = page.imagelength, page.imagewidth
    grid_yx = -(-shape_yx[0] // size_yx[0]), -(-shape_yx[1] // size_yx[1])
    nowhere = np.zeros(0, np.int64)
    return Layout(shape_yx, size_yx, grid_yx, 1, nowhere, nowhere, None, size_yx[0], sparse=False)
