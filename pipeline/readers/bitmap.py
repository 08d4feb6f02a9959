"""PBM, Netpbm's pictures of one bit, as 0 and 255. Packed ones (P4) are read by rows, text (P1) at once.

References
----------
Netpbm's pbm(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import ScanUnreadableError, ScanUnsupportedError
from ..types import Reading
from ._conversion import Conversion
from ._declared import pnm_header, pnm_pictures
from ._lightness import Light
from ._segmented import SegmentedReader, Source
from ._segments import Blocks
from ._window import check_size, reason, refuse_drive_errors

ENDINGS = (".pbm",)
TEXT_LIMIT_BYTES = 2**26
_BAND_BYTES = 4 * 2**20

Decode = Callable[[range, range], NDArray]


def recognizes(head: bytes) -> bool:
    return re.match(rb"P[14][\s#]", head) is not None


def open_reader(path: Path, reading: Reading) -> SegmentedReader:
    """Raises as :func:`pipeline.readers.open_scan`; messages lack the path."""
    try:
        file = path.open("rb")
    except OSError as error:
        refuse_drive_errors(error)
        raise ScanUnreadableError(f"cannot be read ({reason(error)}); check its permissions and disk") from error
    try:
        source = _source_of(file, reading)
    except BaseException as error:
        file.close()
        refuse_drive_errors(error)
        raise
    return SegmentedReader(path, reading, source)


def _source_of(file: BinaryIO, reading: Reading) -> Source:
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
        decode, held_bytes = _text(file, header.end, size, shape_yx)
    samples = Conversion(1, "uint8", lambda stored: stored[:, :, 0], Light())
    metadata: dict[str, Any] = {"format": "PBM", "compression": "none"}
    return Source(
        info=samples.info(shape_yx, metadata, blocks.dropped),
        carried=blocks.carried(),
        segment_yx=(1 if reading.salvage else max(1, _BAND_BYTES // shape_yx[1]), shape_yx[1]),
        decode=decode,
        close=file.close,
        convert=samples.convert,
        decoder_bytes=held_bytes,
    )


def _packed(file: BinaryIO, start: int, size: int, shape_yx: tuple[int, int]) -> Decode:
    """Rows of whole bytes, the highest bit first; 1 is black."""
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


def _text(file: BinaryIO, start: int, size: int, shape_yx: tuple[int, int]) -> tuple[Decode, int]:
    """Digits with or without space between them; beside how to decode them, what they take in memory."""
    height, width = shape_yx
    if size - start > TEXT_LIMIT_BYTES:
        raise ScanUnsupportedError(
            f"a text PBM of {size} bytes, which must be read at once; convert it to a packed one (P4), PNG or TIFF"
        )
    file.seek(start)
    digits = re.sub(rb"#[^\n]*|\s+", b"", file.read(size - start))[: height * width]
    bits = np.frombuffer(digits, np.uint8) - ord("0")
    if bits.size and bits.max() > 1:
        raise ScanUnreadableError("damaged PBM: other digits than 0 and 1; restore it from its source")
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
    return ScanUnreadableError(f"cut off: of {height} rows the file holds {there}; copy it again from its source")
