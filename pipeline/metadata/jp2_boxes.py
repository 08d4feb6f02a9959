"""The boxes of a JP2 file, read and written.

References
----------
ISO/IEC 15444-1:2019 (ITU-T T.800), annex I; for the boxes of metadata, Adobe's XMP Specification Part 3, 1.1.4, and
what ExifTool and GDAL read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

# Metadata in a "uuid" box: 16 bytes that identify its kind, then the unchanged block.
UUIDS = {
    "exif": b"JpgTiffExif->JP2",
    "iptc": bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"),
    "photoshop": bytes.fromhex("2c4c0100850440b9a03e562148d6dfeb"),
    "xmp": bytes.fromhex("be7acfcb97a942e89c71999491e3afac"),
}
_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_HEADER_LIMIT_BYTES = 2**24
_SOT, _EOC, _COD = b"\xff\x90", b"\xff\xd9", b"\xff\x52"
_INCHES_PER_METRE, _CM_PER_METRE = Fraction(10000, 254), Fraction(100)


@dataclass(frozen=True)
class Box:
    """A box in its file: its type, its first byte, its size, and the size of its header."""

    kind: bytes
    offset: int
    size_bytes: int
    header_bytes: int


def boxes(stream: BinaryIO, size_bytes: int) -> Iterator[Box]:
    """The top-level boxes of a file of ``size_bytes``. Raises ValueError if they do not fill it."""
    offset = 0
    while offset < size_bytes:
        stream.seek(offset)
        head = stream.read(16)
        if len(head) < 8:
            raise ValueError(f"a JP2 box cut off at byte {offset}")
        size, header = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(head[8:], "big"), 16
        size = size or size_bytes - offset  # 0: up to the end of the file
        if size < header or offset + size > size_bytes:
            raise ValueError(f"a JP2 box of {size} bytes at byte {offset} of {size_bytes}")
        yield Box(head[4:8], offset, size, header)
        offset += size


def is_srgb_by_number(path: Path) -> bool:
    """True for a JP2 whose first colour specification is enumerated colour space 16 (I.5.3.3)."""
    with path.open("rb") as stream:
        if stream.read(12) != _SIGNATURE:
            return False
        header = next((each for each in boxes(stream, path.stat().st_size) if each.kind == b"jp2h"), None)
        if header is None or header.size_bytes > _HEADER_LIMIT_BYTES:
            return False
        stream.seek(header.offset + header.header_bytes)
        inside = BytesIO(stream.read(header.size_bytes - header.header_bytes))
        for each in boxes(inside, len(inside.getvalue())):
            if each.kind == b"colr":
                inside.seek(each.offset + each.header_bytes)
                said = inside.read(7)
                return said[:1] == b"\1" and said[3:] == b"\0\0\0\x10"
    return False


def check_codestream(stream: BinaryIO, codestream: Box) -> int:
    """Follow a codestream from tile to tile to its end (A.4.2). Returns the number of its smaller copies (A.6.1).

    Raises ValueError if it is incomplete.
    """
    copies = -1
    at, end = codestream.offset + codestream.header_bytes + 2, codestream.offset + codestream.size_bytes
    while at < end:
        stream.seek(at)
        head = stream.read(12)
        if head[:2] == _EOC:
            break
        if head[:2] == _COD:
            copies = head[9]
        size = int.from_bytes(head[6:10], "big") if head[:2] == _SOT else 2 + int.from_bytes(head[2:4], "big")
        if head[:1] != b"\xff" or size < 2:
            break
        at += size
    if head[:2] != _EOC or at + 2 != end or copies < 0:
        raise ValueError(f"a codestream that is not whole: no tile and no end at byte {at} of {end}")
    return copies


def box(kind: bytes, data: bytes) -> bytes:
    """A box of at most 4 GiB."""
    return struct.pack(">I4s", len(data) + 8, kind) + data


def resolution_box(resolution: tuple[float, float, str]) -> bytes:
    """Superbox "res " with the capture resolution (I.5.3.7); empty if it has no unit or is out of range."""
    unit = {"inch": _INCHES_PER_METRE, "cm": _CM_PER_METRE}.get(resolution[2])
    if unit is None or not all(0 < value < 1e9 for value in resolution[:2]):
        return b""
    x, y = (_per_metre(Fraction(value) * unit) for value in resolution[:2])
    return box(b"res ", box(b"resc", struct.pack(">HHHHbb", *y[:2], *x[:2], y[2], x[2])))


def _per_metre(value: Fraction) -> tuple[int, int, int]:
    """Numerator and denominator of 16 bits, and a power of ten."""
    power = 0
    while value >= 10:
        value, power = value / 10, power + 1
    while value < 1:
        value, power = value * 10, power - 1
    limited = value.limit_denominator(int(65535 / value) or 1)
    return limited.numerator, limited.denominator, power


def metadata_boxes(blocks: dict[str, bytes]) -> Iterator[bytes]:
    """A "uuid" box for each block that is not empty."""
    for name, block in blocks.items():
        if block:
            yield box(b"uuid", UUIDS[name] + block)
