"""The chunks of a PNG file other than its coded data.

References
----------
PNG (W3C, third edition), 5 and 11; Exif in PNG (11.3.4.5); ImageMagick's "Raw profile type" texts (coders/png.c).
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import BinaryIO

from pipeline.errors import ScanDamagedError, ScanUnsupportedError
from pipeline.metadata.model import BLOCK_LIMIT_BYTES
from pipeline.readers._base import check_size
from pipeline.readers._metadata_blocks import Blocks, Resolution, ascii_value, printable
from pipeline.types import ReadOptions

MAGIC = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_SUM_BYTES = 4
WHOLE_LIMIT_BYTES = 2**31

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# TIFF's tag for each of PNG's keywords (11.3.3.2); "Source" is the device.
_KEYWORDS = {"Title": 269, "Author": 315, "Description": 270, "Copyright": 33432, "Software": 305, "Source": 272}
_RAW = {"exif": "exif", "iptc": "iptc", "8bim": "photoshop", "xmp": "xmp", "icc": "icc", "icm": "icc"}
_SAY_LITTLE = (b"tIME", b"bKGD", b"sBIT", b"hIST", b"fcTL", b"fdAT")


@dataclass
class PngHeader:
    """``transparent`` is the tRNS chunk; ``gamma`` the exponent from samples to linear light, if the file names one;
    ``primaries`` are x and y of its white, red, green and blue. ``endless``: the end chunk is missing; ``ending`` are
    the bytes to append instead, as Latin-1 text."""

    shape_yx: tuple[int, int]
    bits: int
    colour: int
    interlaced: bool
    transparent: bytes = b""
    srgb: bool = False
    gamma: float | None = None
    primaries: tuple[float, ...] = ()
    endless: bool = False
    ending: str = ""
    resolution: Resolution | None = None
    blocks: Blocks = field(default_factory=Blocks)

    @property
    def channels(self) -> int:
        """Stored channels; the last of two or four is alpha."""
        return _CHANNELS[self.colour]

    @property
    def palette(self) -> bool:
        return self.colour == 3

    @property
    def whole_bytes(self) -> int:
        """Bytes that decoding allocates at once: all of an interlaced PNG; 0 if it decodes by rows."""
        height, width = self.shape_yx
        return height * width * self.channels * -(-self.bits // 8) if self.interlaced else 0


def parse_png(file: BinaryIO, reading: ReadOptions) -> PngHeader:
    file.seek(len(MAGIC))
    first = file.read(25)
    if len(first) < 25 or first[:8] != b"\0\0\0\rIHDR":
        raise ScanDamagedError("damaged PNG: no header chunk; restore it from its source")
    width, height = int.from_bytes(first[8:12], "big"), int.from_bytes(first[12:16], "big")
    header = PngHeader((height, width), first[16], first[17], bool(first[20]))
    if header.bits not in _DEPTHS.get(header.colour, ()):
        raise ScanDamagedError(
            f"damaged PNG: colour type {header.colour} with {header.bits} bits; restore it from its source"
        )
    check_size(header.shape_yx, reading.limit_pixels)
    if header.whole_bytes > WHOLE_LIMIT_BYTES:
        raise ScanUnsupportedError(
            f"an interlaced PNG of {width} x {height} pixels, which must be decoded at once; save it without"
        )
    _take_chunks(file, header)
    return header


def _take_chunks(file: BinaryIO, header: PngHeader) -> None:
    stop = file.seek(0, 2)
    file.seek(len(MAGIC) + 25)
    while (head := file.read(8))[4:] != b"IEND":
        length, name, at = int.from_bytes(head[:4], "big"), head[4:], file.tell()
        if len(head) < 8 or stop < at + length + 4:
            header.endless = True
            header.ending = _ending(file, at - 8, stop)
            return
        if name not in (b"IDAT", b"IHDR", b"PLTE"):
            if length > BLOCK_LIMIT_BYTES:
                kind = printable(name.decode("latin-1"))
                header.blocks.drop(f"{kind} of {length} bytes, above the limit of {BLOCK_LIMIT_BYTES}")
            else:
                _take(header, name, file.read(length))
        file.seek(at + length + 4)


def _ending(file: BinaryIO, at: int, stop: int) -> str:
    """The end chunk, preceded by the missing part of the checksum of the IDAT chunk that begins ``at``."""
    file.seek(at)
    head = file.read(8)
    left = int.from_bytes(head[:4], "big")
    there = stop - at - 8 - left  # of the checksum
    if head[4:] != b"IDAT" or not 0 <= there < _SUM_BYTES:
        return _END.decode("latin-1")
    checksum = zlib.crc32(head[4:])
    while left > 0 and (part := file.read(min(left, 2**20))):
        checksum, left = zlib.crc32(part, checksum), left - len(part)
    return (checksum.to_bytes(_SUM_BYTES, "big")[there:] + _END).decode("latin-1")


def _take(header: PngHeader, name: bytes, body: bytes) -> None:
    blocks = header.blocks
    if name == b"tRNS":
        header.transparent = body
    elif name == b"sRGB":
        header.srgb = True
    elif name == b"gAMA" and len(body) == 4 and (coded := int.from_bytes(body, "big")):
        header.gamma = 100_000 / coded
    elif name == b"cHRM" and len(body) == 32:
        header.primaries = tuple(number / 100_000 for number in struct.unpack(">8I", body))
    elif name == b"pHYs" and len(body) == 9:
        x, y = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
        if body[8] == 1 and x and y:
            header.resolution = (x / 100, y / 100, "cm")
    elif name == b"iCCP" and b"\0" in body[:80]:
        blocks.take_inflated("icc", body.split(b"\0", 1)[1][1:])
    elif name == b"eXIf":
        blocks.take("exif", body.removeprefix(b"Exif\0\0"))
    elif name in (b"tEXt", b"zTXt", b"iTXt"):
        _take_text(blocks, name, body)
    elif name == b"cICP":
        blocks.drop(f"cICP chunk (colour by code points {', '.join(map(str, body[:4]))})")
    elif name == b"acTL":
        blocks.drop("all but the first frame of an animation")
    elif name not in _SAY_LITTLE:
        blocks.drop(f"{printable(name.decode('latin-1'))} chunk")


def _take_text(blocks: Blocks, name: bytes, body: bytes) -> None:
    key, _, rest = body.partition(b"\0")
    keyword = key[:79].decode("latin-1")
    encoding = "latin-1"
    packed = name == b"zTXt"
    if name == b"zTXt":
        rest = rest[1:]
    elif name == b"iTXt":
        packed, encoding = rest[:1] == b"\1", "utf-8"
        rest = rest[2:].split(b"\0", 2)[-1]  # after the language and the translated keyword
    what = f"text {printable(keyword)!r}"
    text = blocks.inflated(what, rest) if packed else rest
    if text is None:
        return
    raw = re.fullmatch(r"Raw profile type (\w+)", keyword)
    if keyword == "XML:com.adobe.xmp":
        blocks.take("xmp", text)
    elif raw and raw[1].lower() in (*_RAW, "app1"):
        _take_raw(blocks, what, raw[1].lower(), text)
    elif keyword in _KEYWORDS:
        blocks.texts.setdefault(_KEYWORDS[keyword], ascii_value(text.decode(encoding, "replace")))
    elif keyword == "Creation Time" and (moment := _moment(text.decode(encoding, "replace"))):
        blocks.texts.setdefault(306, ascii_value(moment))
    else:
        blocks.drop(what)


def _take_raw(blocks: Blocks, what: str, kind: str, text: bytes) -> None:
    """Take a block in ImageMagick's format: a line with the name, one with the length, lines of hexadecimal digits."""
    try:
        length, digits = text.strip().split(b"\n", 2)[1:]
        block = bytes.fromhex(digits.decode("ascii"))
        if len(block) != int(length):
            raise ValueError
    except ValueError:
        blocks.drop(f"{what} (damaged)")
        return
    if block.startswith(b"Exif\0\0"):
        blocks.take("exif", block[6:])
    elif kind == "app1":
        blocks.take("xmp", block.split(b"\0", 1)[-1])
    else:
        blocks.take("photoshop" if kind == "iptc" and block[:4] == b"8BIM" else _RAW[kind], block)


def _moment(text: str) -> str | None:
    """A date of RFC 1123 or ISO 8601 in TIFF's format; None for any other text."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            return parse(text.strip()).strftime("%Y:%m:%d %H:%M:%S")
        except (ValueError, TypeError):
            continue
    return None
