"""The size that a compressed strip or tile declares in its own header, checked before its decoder trusts it.

Decoders of such formats allocate what the header declares, and some fill all of it from a few bytes.

References
----------
ITU-T T.81 (JPEG), B.1; ITU-T T.800 (JPEG 2000), A.5.1; ITU-T T.832 (JPEG XR), annex A; ISO/IEC 18181-1 (JPEG XL), C.3
and 18181-2, 9; RFC 9649 (WebP); Esri LERC, Lerc2; PNG (W3C, third edition), 11.2.1.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from fractions import Fraction

import imagecodecs

from pipeline.errors import ScanDamagedError
from pipeline.readers._tiff.layout import JPEG_COMPRESSIONS

Size = tuple[int, int]
_LERC = 34887
_LERC_ROOM_BYTES = 2**16  # for headers, masks and tables beside the samples
_ROOM = 4  # decoders may pad, and writers may declare more than the tags do
_LEAST_PIXELS = 4096
_JPEG_XL_RATIOS = (None, *(Fraction(*r) for r in ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))))


def unwrapped(data: bytes, compression: int, segment_bytes: int, where: str) -> bytes:
    """LERC without the deflate or Zstandard around it, which its decoder would inflate without a limit.

    LERC much larger than the ``segment_bytes`` of its samples is refused; no writer produces it.
    """
    if int(compression) != _LERC or data[:4] == b"Lerc" or data[:9] == b"CntZImage":
        return data
    limit = 2 * segment_bytes + _LERC_ROOM_BYTES
    try:
        if data[:4] == b"\x28\xb5\x2f\xfd":
            inflated = bytes(imagecodecs.zstd_decode(data, out=limit))
        else:
            stream = zlib.decompressobj()
            inflated = stream.decompress(data, limit)
            if stream.unconsumed_tail and not stream.eof:
                raise ValueError("more than may be")
    except (ValueError, RuntimeError, zlib.error):
        raise ScanDamagedError(
            f"damaged: {where} is no LERC of at most {limit} bytes; restore it from its source"
        ) from None
    return inflated


def check_embedded_size(data: bytes, compression: int, size_yx: Size, where: str, samples: int = 1) -> None:
    """Refuse a segment whose own header is unreadable or declares much more than its strip or tile holds.

    ``samples`` is the number of samples per pixel.
    """
    declared = _DECLARED.get(int(compression))
    if declared is None:
        return
    try:
        height, width = declared(data)
    except (ValueError, IndexError, StopIteration):
        raise ScanDamagedError(f"damaged: {where} has no readable header; restore it from its source") from None
    if int(compression) == _LERC:
        height = -(-height // samples)
    if height * width > _ROOM * max(size_yx[0] * size_yx[1], _LEAST_PIXELS):
        raise ScanDamagedError(f"damaged: {where} claims {width} x {height} pixels; restore it from its source")


def _jpeg(data: bytes) -> Size:
    at = data.index(b"\xff\xd8") + 2
    while True:
        at = data.index(b"\xff", at)
        while data[at] == 0xFF:  # fill bytes
            at += 1
        marker, length = data[at], int.from_bytes(data[at + 1 : at + 3], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 4 : at + 6], "big"), int.from_bytes(data[at + 6 : at + 8], "big")
        if marker == 0xDA or length < 2:
            raise ValueError("no frame header")
        at += 1 + length


def _jpeg2000(data: bytes) -> Size:
    """The largest size in any possible SIZ segment: a box before the codestream may contain a false one."""
    sizes = []
    at = data.index(b"\xff\x4f\xff\x51")
    while at >= 0:
        right, bottom, left, top = (_big(data, at + 8 + place) for place in range(0, 16, 4))
        sizes.append((max(0, bottom - top), max(0, right - left)))
        at = data.find(b"\xff\x4f\xff\x51", at + 4)
    return max(sizes, key=lambda size: size[0] * size[1])


def _big(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _little(data: bytes, at: int, size: int = 4) -> int:
    if at + size > len(data):
        raise ValueError("cut off")
    return int.from_bytes(data[at : at + size], "little")


def _png(data: bytes) -> Size:
    return _big(data, 20), _big(data, 16)


def _webp(data: bytes) -> Size:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + _little(data, 27, 3), 1 + _little(data, 24, 3)
    if kind == b"VP8L":
        bits = _little(data, 21)
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    return _little(data, 28, 2) & 0x3FFF, _little(data, 26, 2) & 0x3FFF


def _lerc(data: bytes) -> Size:
    """The decoded size, with all samples of a pixel and all bands stacked as rows."""
    if data[:9] == b"CntZImage":
        return _little(data, 18), _little(data, 22)
    if data[:6] != b"Lerc2 ":
        raise ValueError("no LERC")
    version = _little(data, 6)
    at = 14 if version >= 3 else 10
    depth = _little(data, at + 8) if version >= 4 else 1
    return _little(data, at) * max(1, depth) * data.count(b"Lerc2 "), _little(data, at + 4)


def _jpeg_xr(data: bytes) -> Size:
    directory = _little(data, 4)
    found = {0xBC80: 0, 0xBC81: 0}
    for at in range(directory + 2, directory + 2 + 12 * _little(data, directory, 2), 12):
        code, kind = _little(data, at, 2), _little(data, at + 2, 2)
        if code in found:
            found[code] = _little(data, at + 8, {1: 1, 3: 2}.get(kind, 4))
    return found[0xBC81], found[0xBC80]


def _jpeg_xl(data: bytes) -> Size:
    bits = int.from_bytes(_jpeg_xl_codestream(data)[2:18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & (1 << count) - 1
        bits >>= count
        return value

    small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = _JPEG_XL_RATIOS[take(3)]
    return height, side() if ratio is None else int(height * ratio)


def _jpeg_xl_codestream(data: bytes) -> bytes:
    """The codestream from its signature on, or its first part if a container splits it into several boxes."""
    if data[:2] == b"\xff\x0a":
        return data
    at = 0
    while at + 8 <= len(data):
        length, head = _big(data, at), 8
        if length == 1:
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        kind = data[at + 4 : at + 8]
        if kind in (b"jxlc", b"jxlp"):
            return data[at + head + (4 if kind == b"jxlp" else 0) :][:32]
        if length < head:
            break
        at += length
    raise ValueError("no codestream")


_DECLARED: dict[int, Callable[[bytes], Size]] = {
    **dict.fromkeys(JPEG_COMPRESSIONS, _jpeg),
    **dict.fromkeys((33003, 33004, 33005, 34712), _jpeg2000),
    **dict.fromkeys((22610, 34934), _jpeg_xr),
    **dict.fromkeys((50002, 52546), _jpeg_xl),
    **dict.fromkeys((34927, 50001), _webp),
    _LERC: _lerc,
    34933: _png,
}
