"""Headers of JPEG XL, AVIF and JPEG-LS, parsed here because their decoders allocate what these declare at once.

References
----------
ISO/IEC 18181-1 (JPEG XL codestream), annexes D and E; ISO/IEC 18181-2 (its file format); ISO/IEC 23008-12 (HEIF), 6.5;
AV1 Codec ISO Media File Format Binding, 2.3 (av1C); ITU-T T.87 (JPEG-LS), C.2.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.errors import ScanDamagedError, ScanUnsupportedError
from pipeline.metadata.model import BLOCK_LIMIT_BYTES
from pipeline.readers import _raster_headers
from pipeline.readers._metadata_blocks import WITHOUT_END, Blocks, Resolution, boxes

_HEADER_BYTES = 65_536
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_ALPHA, _SPOT, _CFA = 0, 2, 5
_RGB, _GRAY, _XYB = 0, 1, 2
_LINEAR, _SRGB, _PQ, _DCI, _HLG = 8, 13, 16, 17, 18
_TURNED = {1: 8, 2: 3, 3: 6}  # TIFF's orientation for quarter turns anticlockwise


@dataclass
class Whole:
    """A header.

    Attributes
    ----------
    bits : depth of a sample; floats have 16 or 32
    channels : number of channels, opacity included; the largest possible number if the header does not say
    gamma : exponent from samples to linear light, if the file names one
    ending : bytes to append if the end of the file is missing
    """

    shape_yx: tuple[int, int] = (0, 0)
    bits: int = 8
    channels: int = 4
    gamma: float | None = None
    ending: bytes = b""
    orientation: int = 1
    resolution: Resolution | None = None
    blocks: Blocks = field(default_factory=Blocks)

    @property
    def pixel_bytes(self) -> int:
        """Bytes per pixel while decoding: at least 4, as in libjxl and libavif."""
        return max(4, self.channels * (1 if self.bits <= 8 else 2 if self.bits <= 16 else 4))


class _Bits:
    """JPEG XL's bit stream: the lowest bit of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def u(self, count: int) -> int:
        if count > self._left:
            raise ScanDamagedError("damaged or cut off: the JPEG XL header is incomplete; copy it again")
        found = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return found

    def u32(self, *choices: tuple[int, int]) -> int:
        """Two bits choose among (bits, offset)."""
        count, offset = choices[self.u(2)]
        return self.u(count) + offset

    def enum(self) -> int:
        return self.u32((0, 0), (0, 1), (4, 2), (6, 18))


def jpeg_xl(file: BinaryIO) -> Whole:
    whole = Whole()
    stop = file.seek(0, 2)
    file.seek(0)
    if file.read(2) == b"\xff\x0a":
        _codestream(file.read(4096), whole)
        return whole
    found = False
    for kind, begin, end in boxes(file, 0, stop):
        file.seek(begin)
        if kind in (b"jxlc", b"jxlp") and not found:
            found = True
            data = file.read(min(end - begin, 4096))
            _codestream(data[2:] if kind == b"jxlc" else data[6:], whole)
        elif kind == b"Exif":
            skipped = int.from_bytes(file.read(4), "big")
            file.seek(begin + 4 + min(skipped, end))
            whole.blocks.take("exif", file.read(max(0, min(end - begin - 4 - skipped, BLOCK_LIMIT_BYTES + 1))))
        elif kind == b"xml ":
            whole.blocks.take("xmp", file.read(min(end - begin, BLOCK_LIMIT_BYTES + 1)))
        elif kind in (b"brob", b"jumb"):
            name = (file.read(4) if kind == b"brob" else kind).decode("latin-1").strip()
            whole.blocks.drop(f"{name!r} box{' (compressed)' if kind == b'brob' else ''}")
    if not found:
        raise ScanDamagedError("damaged or cut off: the JPEG XL holds no picture; copy it again from its source")
    return whole


def _codestream(header: bytes, whole: Whole) -> None:
    bits = _Bits(header)
    whole.shape_yx = _size(bits)
    whole.channels = 3
    if bits.u(1):  # everything else has its default: 8 bits, sRGB
        return
    extra_fields = bits.u(1)
    if extra_fields:
        whole.orientation = bits.u(3) + 1
        if bits.u(1):
            _size(bits)
        if bits.u(1):
            _preview(bits)
        if bits.u(1):
            bits.u32((0, 100), (0, 1000), (10, 1), (30, 1))
            bits.u32((0, 1), (0, 1001), (8, 1), (10, 1))
            bits.u32((0, 0), (3, 0), (16, 0), (32, 0))
            bits.u(1)
            whole.blocks.drop("all but the first frame of an animation")
    whole.bits = _depth(bits)
    bits.u(1)
    extra = bits.u32((0, 0), (0, 1), (4, 2), (12, 1))
    for _ in range(extra):
        _extra_channel(bits)
    bits.u(1)
    _colour(bits, whole)
    whole.channels += extra


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.u(1)

    def side() -> int:
        return 8 * (bits.u(5) + 1) if small else bits.u32((9, 1), (13, 1), (18, 1), (30, 1))

    height = side()
    ratio = bits.u(3)
    if not ratio:
        return height, side()
    top, bottom = _RATIOS[ratio - 1]
    return height, height * top // bottom


def _preview(bits: _Bits) -> None:
    eighths = bits.u(1)

    def side() -> None:
        bits.u32(*(((0, 16), (0, 32), (5, 1), (9, 33)) if eighths else ((6, 1), (8, 65), (10, 321), (12, 1345))))

    side()
    if not bits.u(3):
        side()


def _depth(bits: _Bits) -> int:
    if not bits.u(1):
        return bits.u32((0, 8), (0, 10), (0, 12), (6, 1))
    depth = bits.u32((0, 32), (0, 16), (0, 24), (6, 1))
    bits.u(4)
    return depth


def _extra_channel(bits: _Bits) -> None:
    if bits.u(1):
        return
    kind = bits.enum()
    _depth(bits)
    bits.u32((0, 0), (0, 3), (0, 4), (3, 1))
    bits.u(8 * bits.u32((0, 0), (4, 0), (5, 16), (10, 48)))
    if kind == _ALPHA:
        bits.u(1)
    elif kind == _SPOT:
        bits.u(64)
    elif kind == _CFA:
        bits.u32((0, 1), (2, 0), (4, 3), (8, 19))


def _colour(bits: _Bits, whole: Whole) -> None:
    if bits.u(1):
        return
    with_icc, space = bits.u(1), bits.enum()
    whole.channels = 1 if space == _GRAY else 3
    if with_icc:
        whole.blocks.drop("ICC profile (JPEG XL compresses it; the samples are taken as sRGB)")
        return
    if space == _XYB:
        return
    if bits.enum() == 2:
        _point(bits)
    if space != _GRAY:
        primaries = bits.enum()
        if primaries == 2:
            for _ in range(3):
                _point(bits)
        if primaries != 1:
            whole.blocks.drop("primaries (taken as those of sRGB)")
    if bits.u(1):
        exponent = bits.u(24)
        whole.gamma = 1e7 / exponent if exponent else None
    else:
        _take_transfer(bits.enum(), whole)


def _point(bits: _Bits) -> None:
    for _ in range(2):
        bits.u32((19, 0), (19, 524_288), (20, 1_048_576), (21, 2_097_152))


def _take_transfer(function: int, whole: Whole) -> None:
    """A transfer function by its number in ITU-T H.273, table 3."""
    if function in (_PQ, _HLG):
        raise ScanUnsupportedError("a picture of high dynamic range, which is not handled; convert it to sRGB")
    if function in (_LINEAR, _DCI):
        whole.gamma = 1.0 if function == _LINEAR else 2.6
    elif function != _SRGB:
        whole.blocks.drop(f"transfer function {function} (taken as that of sRGB)")


def avif(file: BinaryIO) -> Whole:
    """The largest picture of the file; if the picture is stored in tiles, that is the whole picture."""
    whole = Whole()
    stop = file.seek(0, 2)
    for kind, begin, end in boxes(file, 0, stop):
        if kind != b"meta":
            continue
        for inner, start, after in boxes(file, begin + 4, end):
            if inner == b"iinf":
                file.seek(start)
                items = file.read(min(after - start, _HEADER_BYTES))
                for name in (b"Exif", b"mime"):
                    if name in items:
                        whole.blocks.drop(f"{'XMP' if name == b'mime' else 'Exif'} item")
            elif inner == b"iprp":
                for container, first, last in boxes(file, start, after):
                    if container == b"ipco":
                        _properties(file, first, last, whole)
    if whole.shape_yx == (0, 0):
        raise ScanDamagedError("damaged or cut off: the AVIF declares no size; copy it again from its source")
    return whole


def _properties(file: BinaryIO, begin: int, end: int, whole: Whole) -> None:
    for kind, start, after in boxes(file, begin, end):
        file.seek(start)
        body = file.read(min(after - start, BLOCK_LIMIT_BYTES + 4))
        if kind == b"ispe" and len(body) >= 12:
            shape = int.from_bytes(body[8:12], "big"), int.from_bytes(body[4:8], "big")
            whole.shape_yx = max(whole.shape_yx, shape, key=lambda size: size[0] * size[1])
        elif kind == b"av1C" and len(body) >= 3:
            whole.bits = max(whole.bits, 12 if body[2] & 0x20 else 10 if body[2] & 0x40 else 8)
        elif kind == b"colr" and body[:4] in (b"prof", b"rICC"):
            whole.blocks.take("icc", body[4:])
        elif kind == b"colr" and body[:4] == b"nclx" and len(body) >= 10:
            function = int.from_bytes(body[6:8], "big")
            # 1, 2, 6: for video, or unspecified; encoders of photographs write these for sRGB
            _take_transfer(_SRGB if function in (1, 2, 6) else function, whole)
        elif kind == b"irot" and body:
            whole.orientation = _TURNED.get(body[0] & 3, 1)
        elif kind == b"imir":
            whole.blocks.drop("mirroring")


def jpeg_ls(file: BinaryIO) -> Whole:
    file.seek(2)
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        length = int.from_bytes(head[2:], "big")
        segment = file.read(max(0, length - 2))
        if head[1] == 0xF7 and len(segment) >= 6:
            shape_yx = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
            whole = Whole(shape_yx, bits=segment[0], channels=segment[5])
            # CharLS takes seconds for a small picture without its end; if more is missing, it refuses.
            file.seek(max(0, file.seek(0, 2) - _HEADER_BYTES))
            if b"\xff\xd9" not in (last := file.read()):
                whole.ending = b"\xd9" if last[-1:] == b"\xff" else b"\xff\xd9"
                whole.blocks.drop(WITHOUT_END)
            return whole
    raise ScanDamagedError("damaged or cut off: the JPEG-LS has no frame header; copy it again from its source")


def bmp(file: BinaryIO) -> Whole:
    """A BMP with a header of version 4 or 5, which GDAL does not support."""
    declared = _raster_headers.bmp(file, False)
    if declared.compression != "none" or declared.shape_yx is None:
        raise ScanUnsupportedError("a run-length coded BMP with a long header, which is not handled; convert it to PNG")
    ending = declared.ending.encode("latin-1")
    return Whole(declared.shape_yx, resolution=declared.resolution, blocks=declared.blocks, ending=ending)


def is_jpeg_ls(head: bytes) -> bool:
    """True if the first bytes of a file contain a frame header of T.87; a SPIFF header may precede it."""
    at = 2
    while head[:3] == b"\xff\xd8\xff" and at + 4 <= len(head) and head[at] == 0xFF:
        if head[at + 1] == 0xF7:
            return True
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return False
