"""PCX of version 5, run-length coded: black and white, 256 colours by a palette, RGB in three planes.

Read by rows, from the top: to reach a row, all rows above it are decoded once.

References
----------
ZSoft PCX Technical Reference Manual, revision 5 (1991).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanDamagedError, ScanUnreadableError, ScanUnsupportedError
from pipeline.readers._base import check_size, palette_table
from pipeline.readers._conversion import Conversion
from pipeline.readers._lightness import Light
from pipeline.readers._metadata_blocks import Blocks
from pipeline.readers._region_reader import SegmentedReader, Source, open_regions
from pipeline.types import ReadOptions

_BAND_BYTES = 4 * 2**20
_HEADER_BYTES, _PALETTE_BYTES = 128, 769
_PALETTE_MARK, _GRAY = b"\x0c", 2
_HANDLED = ((1, 1), (8, 1), (8, 3))  # bits and planes
_RUN, _LONGEST_RUN = 0xC0, 0x3F
_MOST_CODED_BYTES, _LEAST_CODED_BYTES = 2**18, 2**12


@dataclass(frozen=True)
class _Header:
    """``row_bytes``: of all planes of a row, decoded; ``plane_bytes``: of one of them, fillers included."""

    shape_yx: tuple[int, int]
    bits: int
    planes: int
    plane_bytes: int
    dpi: tuple[int, int]
    colours: bytes
    is_gray: bool

    @property
    def row_bytes(self) -> int:
        return self.planes * self.plane_bytes


def recognizes(head: bytes) -> bool:
    return len(head) >= 4 and head[0] == 10 and head[1] in (0, 2, 3, 4, 5) and head[2] < 2 and head[3] in (1, 2, 4, 8)


def open_reader(path: Path, reading: ReadOptions) -> SegmentedReader:
    """Open a PCX. Raises as :func:`pipeline.readers.open_scan`; messages lack the path."""
    return open_regions(path, reading, _source_of)


def _source_of(file: BinaryIO, reading: ReadOptions) -> Source:
    header, blocks = _header_of(file.read(_HEADER_BYTES)), Blocks()
    height, width = header.shape_yx
    check_size(header.shape_yx, reading.limit_pixels)
    if header.plane_bytes * 8 < width * header.bits:
        raise ScanUnreadableError(
            f"damaged: rows of {header.plane_bytes} bytes for {width} pixels; restore it from its source"
        )
    size = os.fstat(file.fileno()).st_size
    most_rows = (size - _HEADER_BYTES) * _LONGEST_RUN // 2 // header.row_bytes
    if most_rows < height and not reading.salvage:
        raise _cut(height, f"at most {most_rows}")
    samples, stop = _samples_of(file, size, header, reading.salvage, blocks)
    segment_rows = 1 if reading.salvage else max(1, _BAND_BYTES // header.row_bytes)
    metadata: dict[str, Any] = {"format": "PCX", "compression": "rle"}
    if min(header.dpi) > 0 and header.dpi != (width, height):  # old programs write the size of the screen there
        metadata["resolution"] = [*map(float, header.dpi), "inch"]
    return Source(
        info=samples.info(header.shape_yx, metadata, blocks.dropped),
        embedded=blocks.embedded(),
        segment_yx=(segment_rows, width),
        decode=_decoder(_Rows(file, stop, header, segment_rows), header),
        close=file.close,
        convert=samples.convert,
    )


def _header_of(head: bytes) -> _Header:
    if len(head) < _HEADER_BYTES:
        raise ScanDamagedError("damaged or cut off: the PCX header is incomplete; copy it again from its source")
    version, encoding, bits, left, upper, right, bottom, *dpi = struct.unpack_from("<xBBB6H", head)
    planes, plane_bytes, kind = struct.unpack_from("<BHH", head, 65)
    if (version, encoding) != (5, 1) or (bits, planes) not in _HANDLED:
        raise ScanUnsupportedError(
            f"a PCX of version {version}, encoding {encoding}, {planes} x {bits} bits, which is not handled; "
            "convert it to PNG or TIFF"
        )
    shape_yx = bottom - upper + 1, right - left + 1
    return _Header(shape_yx, bits, planes, plane_bytes, (dpi[0], dpi[1]), head[16:22], kind == _GRAY)


def _samples_of(file: BinaryIO, size: int, header: _Header, salvage: bool, blocks: Blocks) -> tuple[Conversion, int]:
    """What the decoded bytes mean, and the byte of the file where they end."""
    if header.planes == 3:
        return Conversion(3, "uint8", lambda stored: stored, Light()), size
    if header.bits == 1:
        if sum(header.colours[:3]) > sum(header.colours[3:]):
            blocks.drop("the header's two colours, of which the first is the lighter (0 is taken for black)")
        return Conversion(1, "uint8", lambda stored: stored[:, :, 0], Light()), size
    file.seek(max(_HEADER_BYTES, size - _PALETTE_BYTES))
    end = file.read(_PALETTE_BYTES)
    if len(end) == _PALETTE_BYTES and end.startswith(_PALETTE_MARK):
        table = palette_table(np.frombuffer(end, np.uint8, offset=1).reshape(256, 3))
        samples = Conversion(1 if table.ndim == 1 else 3, "uint8", lambda stored: table[stored[:, :, 0]], Light())
        return samples, size - _PALETTE_BYTES
    if not header.is_gray:
        if not salvage:
            raise ScanDamagedError("cut off: its palette of 256 colours is missing; copy it again from its source")
        blocks.drop("the palette (missing; the numbers of colours are taken as gray)")
    return Conversion(1, "uint8", lambda stored: stored[:, :, 0], Light()), size


def _decoder(lines: _Rows, header: _Header) -> Callable[[range, range], NDArray]:
    width = header.shape_yx[1]

    def decode(rows: range, columns: range) -> NDArray:
        planes = lines.read(rows).reshape(len(rows), header.planes, header.plane_bytes)
        if header.bits == 1:  # the highest bit first; 0 is black
            planes = np.unpackbits(planes, axis=2, count=width) * np.uint8(255)
        return np.ascontiguousarray(planes[:, :, columns.start : columns.stop].transpose(0, 2, 1))

    return decode


class _At(NamedTuple):
    """A place among the runs: the byte of the file where one begins, and how many decoded bytes after it are used."""

    byte: int
    used: int


class _Rows:
    """Rows as they come out of the runs. Where each segment begins is kept when it is first passed.

    A run that goes on over the end of a row goes on in the next one; the manual's own encoder breaks runs there.
    """

    def __init__(self, file: BinaryIO, stop: int, header: _Header, segment_rows: int) -> None:
        self._file, self._stop, self._header, self._segment_rows = file, stop, header, segment_rows
        self._starts = [_At(_HEADER_BYTES, 0)]
        self._there: int | None = None  # rows, known once the end has been met

    def read(self, rows: range) -> NDArray:
        """(rows, row_bytes) uint8 of one whole segment."""
        segment = rows.start // self._segment_rows
        while len(self._starts) <= segment and self._there is None:
            first = (len(self._starts) - 1) * self._segment_rows
            self._decode(range(first, first + self._segment_rows))
        if self._there is not None and rows.stop > self._there:
            raise _cut(self._header.shape_yx[0], str(self._there))
        return self._decode(rows)

    def _decode(self, rows: range) -> NDArray:
        at, row_bytes = self._starts[rows.start // self._segment_rows], self._header.row_bytes
        decoded, filled = np.empty(len(rows) * row_bytes, np.uint8), 0
        while filled < decoded.size:
            part, after = self._next(at, decoded.size - filled)
            if after == at:
                self._there = rows.start + filled // row_bytes
                raise _cut(self._header.shape_yx[0], str(self._there))
            decoded[filled : filled + part.size] = part
            filled, at = filled + part.size, after
        if len(self._starts) == rows.start // self._segment_rows + 1:
            self._starts.append(at)
        return decoded.reshape(len(rows), row_bytes)

    def _next(self, at: _At, wanted: int) -> tuple[NDArray, _At]:
        """Up to ``wanted`` decoded bytes, and the place after them; the same place at the end of the data."""
        coded = min(_MOST_CODED_BYTES, max(_LEAST_CODED_BYTES, 2 * wanted), self._stop - at.byte)
        self._file.seek(at.byte)
        starts, counts, values, taken = _runs(self._file.read(max(0, coded)))
        ends = np.cumsum(counts)
        last = int(np.searchsorted(ends, at.used + wanted))
        if last == len(ends):  # all of them, and more are needed
            after = _At(at.byte + taken, 0)
        else:
            before = int(ends[last] - counts[last])
            after = _At(at.byte + int(starts[last]), at.used + wanted - before)
        decoded = np.repeat(values[: last + 1], counts[: last + 1])
        return decoded[at.used : at.used + wanted], after


def _runs(coded: bytes) -> tuple[NDArray, NDArray, NDArray, int]:
    """First byte, length and value of each run that is complete, and the byte after the last one.

    A byte whose two highest bits are set is a count, and the value follows; any other is a value that stands once.
    Among successive bytes with these bits every other one is therefore a count, beginning with the first.
    """
    data = np.frombuffer(coded, np.uint8)
    places = np.arange(data.size)
    is_high = data >= _RUN
    since = places - np.maximum.accumulate(np.where(is_high, -1, places))
    is_count = is_high & (since % 2 == 1)
    taken = data.size - int(data.size > 0 and bool(is_count[-1]))
    is_value = np.concatenate([[False], is_count[:-1]])[: data.size]
    starts = np.flatnonzero(~is_value[:taken])
    of_count = is_count[starts]
    counts = np.where(of_count, data[starts] & (_LONGEST_RUN), 1).astype(np.int64)
    return starts, counts, data[starts + of_count], taken


def _cut(height: int, there: str) -> ScanUnreadableError:
    return ScanDamagedError(f"cut off: of {height} rows the file holds {there}; copy it again from its source")
