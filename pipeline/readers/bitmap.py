"""PBM, Netpbm's bilevel pictures, read as 0 and 255, and Netpbm's text formats. Packed PBM (P4) is read by rows, text
(P1 to P3) at once.

References
----------
Netpbm's pbm(5), and "Plain PGM" and "Plain PPM" in pgm(5) and ppm(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanDamagedError, ScanUnreadableError, ScanUnsupportedError
from pipeline.readers._base import check_size
from pipeline.readers._conversion import Conversion, stretched
from pipeline.readers._lightness import Light, Stretch
from pipeline.readers._metadata_blocks import Blocks
from pipeline.readers._raster_headers import PnmHeader, pnm_header, pnm_pictures
from pipeline.readers._region_reader import SegmentedReader, Source, open_regions
from pipeline.types import ReadOptions

TEXT_LIMIT_BYTES = 2**26
_BAND_BYTES = 4 * 2**20
_NAMES = {b"P2": "PGM", b"P3": "PPM"}

Decode = Callable[[range, range], NDArray]


def recognizes(head: bytes) -> bool:
    return re.match(rb"P[1-4][\s#]", head) is not None


def open_reader(path: Path, reading: ReadOptions) -> SegmentedReader:
    """Open a PBM or a text PGM or PPM. Raises as :func:`pipeline.readers.open_scan`; messages lack the path."""
    return open_regions(path, reading, _source_of)


def _source_of(file: BinaryIO, reading: ReadOptions) -> Source:
    header = pnm_header(file)
    shape_yx, blocks = header.shape_yx, Blocks()
    check_size(shape_yx, reading.limit_pixels)
    size = os.fstat(file.fileno()).st_size
    if header.commented:
        blocks.drop("comment")
    if header.kind == b"P4":
        blocks.drop(pnm_pictures(file))
        decode, held_bytes = _packed(file, header.end, size, shape_yx), 0
    else:
        made = _numbers if header.kind in (b"P2", b"P3") else _text
        decode, held_bytes = made(file, header, size)
    samples = _conversion(header)
    metadata: dict[str, Any] = {"format": _NAMES.get(header.kind, "PBM"), "compression": "none"}
    return Source(
        info=samples.info(shape_yx, metadata, blocks.dropped),
        embedded=blocks.embedded(),
        segment_yx=(1 if reading.salvage else max(1, _BAND_BYTES // shape_yx[1]), shape_yx[1]),
        decode=decode,
        close=file.close,
        convert=samples.convert,
        decoder_bytes=held_bytes,
    )


def _conversion(header: PnmHeader) -> Conversion:
    if header.kind not in _NAMES:
        return Conversion(1, "uint8", lambda stored: stored[:, :, 0], Light())
    dtype = "uint8" if header.top < 256 else "uint16"
    stretch = Stretch.of(dtype, 0 if header.top in (255, 65535) else header.top, lambda: ())
    return stretched(3 if header.kind == b"P3" else 1, dtype, Light(), stretch)


def _packed(file: BinaryIO, start: int, size: int, shape_yx: tuple[int, int]) -> Decode:
    """Decoder of rows of whole bytes, the highest bit first; 1 is black."""
    height, width = shape_yx
    row_bytes = -(-width // 8)

    def decode(rows: range, columns: range) -> NDArray:
        begin, count = start + rows.start * row_bytes, len(rows) * row_bytes
        if begin + count > size:
            raise _cut(height, max(0, size - start) // row_bytes)
        file.seek(begin)
        data = file.read(count)
        if len(data) < count:
            raise _cut(height, rows.start)
        bits = np.unpackbits(np.frombuffer(data, np.uint8).reshape(len(rows), row_bytes), axis=1, count=width)
        return _samples(bits[:, columns.start : columns.stop])

    return decode


def _whole_text(file: BinaryIO, header: PnmHeader, size: int) -> bytes:
    """All text after the header, without comments."""
    if size - header.end > TEXT_LIMIT_BYTES:
        raise ScanUnsupportedError(
            f"a picture in text of {size} bytes, which must be read at once; convert it to PNG or TIFF"
        )
    file.seek(header.end)
    return re.sub(rb"#[^\n]*", b" ", file.read(size - header.end))


def _numbers(file: BinaryIO, header: PnmHeader, size: int) -> tuple[Decode, int]:
    """Decoder of decimal numbers separated by whitespace, and the bytes they take in memory."""
    (height, width), channels = header.shape_yx, 3 if header.kind == b"P3" else 1
    text = _whole_text(file, header, size)
    if re.search(rb"[^\d\s]|\d{10}", text):
        raise ScanUnreadableError("damaged: other than numbers where samples should be; restore it from its source")
    found = np.fromstring(text, np.int32, sep=" ")[: height * width * channels]
    if found.size and found.max() > header.top:
        raise ScanUnreadableError(f"damaged: a sample above {header.top}; restore it from its source")
    samples = found.astype(np.uint8 if header.top < 256 else np.uint16)
    there = samples.size // (width * channels)

    def decode(rows: range, columns: range) -> NDArray:
        if rows.stop > there:
            raise _cut(height, there)
        part = samples[rows.start * width * channels : rows.stop * width * channels]
        return part.reshape(len(rows), width, channels)[:, columns.start : columns.stop]

    return decode, 4 * size


def _text(file: BinaryIO, header: PnmHeader, size: int) -> tuple[Decode, int]:
    """Decoder of digits with or without whitespace between them, and the bytes they take in memory."""
    height, width = header.shape_yx
    digits = re.sub(rb"\s+", b"", _whole_text(file, header, size))[: height * width]
    bits = np.frombuffer(digits, np.uint8) - ord("0")
    if bits.size and bits.max() > 1:
        raise ScanDamagedError("damaged PBM: other digits than 0 and 1; restore it from its source")
    there = bits.size // width

    def decode(rows: range, columns: range) -> NDArray:
        if rows.stop > there:
            raise _cut(height, there)
        part = bits[rows.start * width : rows.stop * width].reshape(len(rows), width)
        return _samples(part[:, columns.start : columns.stop])

    return decode, 3 * size


def _samples(bits: NDArray) -> NDArray:
    return ((1 - bits) * np.uint8(255))[:, :, None]


def _cut(height: int, there: int) -> ScanUnreadableError:
    return ScanDamagedError(f"cut off: of {height} rows the file holds {there}; copy it again from its source")
