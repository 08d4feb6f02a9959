"""Headers of raster files, parsed before any library allocates what they declare.

References
----------
ISO/IEC 15444-1, A.5.1 (SIZ) and annex I (JP2); RFC 9649 (WebP); GIF89a; BITMAPINFOHEADER (Windows); Netpbm's pbm(5),
pgm(5) and ppm(5); The SGI Image File Format, 1.00; MIL-STD-2500C (NITF); GDAL's HFA driver notes (Erdas Imagine).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.errors import ScanDamagedError, ScanUnreadableError, ScanUnsupportedError
from pipeline.metadata.model import BLOCK_LIMIT_BYTES
from pipeline.readers._metadata_blocks import (
    WITHOUT_END,
    Blocks,
    Resolution,
    ascii_value,
    boxes,
    printable,
    riff_chunks,
)

_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_IPTC_UUID = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
# OpenJPEG allocates about 13 kB for each component of each declared tile before it decodes any.
_JP2_MOST_TILES = 50_000
_JP2_MOST_LISTS_BYTES = 2**27
_PHOTOSHOP_UUID = bytes.fromhex("2c4c0100850440b9a03e562148d6dfeb")
_GEOJP2_UUID = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03")
_EXIF_UUID = b"JpgTiffExif->JP2"
_JP2_BOXES_PLAIN = (b"jP  ", b"ftyp", b"jp2c", b"free", b"jp2h", b"rreq", b"asoc")
# 0 and 15 are bilevel; writers also use 0 if they know nothing better.
_GRAY_OR_RGB, _SYCC = (0, 15, 16, 17), 18
_ENUMERATED = {1: "YCbCr", 3: "YCbCr", 4: "YCbCr", 9: "PhotoYCC", 11: "CMY", 12: "CMYK", 13: "YCCK", 14: "CIE L*a*b*"}
_ENUMERATED |= {19: "CIE Jab", 20: "e-sRGB", 21: "ROMM RGB", 22: "YPbPr", 23: "YPbPr", 24: "e-sYCC"}
_BMP_OF_OS2 = 12
_BMP_MASKS, _BMP_BYTES = 3, (0xFF0000, 0xFF00, 0xFF)
_MAX_FRAMES = 100_000
_MAX_NODES = 100_000
_PNM_HEADER_BYTES = 4096
_PNM_SPACE = rb"(?:\s|#[^\n]*\n)+"
_PNM_HEADER = re.compile(rb"(P[2356])" + 3 * (_PNM_SPACE + rb"(\d+)") + rb"\s")
_PNM_TEXT = b"P1", b"P2", b"P3"
_PBM_HEADER = re.compile(rb"(P[14])" + 2 * (_PNM_SPACE + rb"(\d+)") + rb"\s")
_HFA_ELSEWHERE = (b"externalrasterdms", b"imgexternalraster", b"dependentfile", b"eimg_dependentfile")


@dataclass
class Declared:
    """A header.

    Attributes
    ----------
    shape_yx : rows, columns; None if the driver reports it without allocating
    whole_bytes : bytes that decoding allocates at once; 0 if it decodes by rows or blocks
    lists_bytes : bytes that decoding holds for its index of the file, and for the file itself
    top : the largest sample; 0 if it is that of the data type
    present : first row and end (exclusive) of the rows that are complete in the file; None if unknown
    order : for red, green and blue, the index of its channel among those that the driver returns; empty if in order
    ending : bytes to append if the end of the file is missing, as Latin-1 text
    sycc : the three channels are luma and chroma as in sYCC (IEC 61966-2-1, amendment 1)
    """

    shape_yx: tuple[int, int] | None = None
    whole_bytes: int = 0
    lists_bytes: int = 0
    top: int = 0
    present: tuple[int, int] | None = None
    sycc: bool = False
    order: tuple[int, ...] = ()
    ending: str = ""
    compression: str = "none"
    resolution: Resolution | None = None
    blocks: Blocks = field(default_factory=Blocks)


def _cut(name: str) -> ScanUnreadableError:
    return ScanDamagedError(f"damaged or cut off: the {name} header is incomplete; copy it again from its source")


def jpeg2000(file: BinaryIO, salvage: bool) -> Declared:
    """A JP2 or JPX file, or a bare codestream."""
    declared = Declared(compression="jpeg2000")
    stop = file.seek(0, 2)
    file.seek(0)
    if file.read(2) == b"\xff\x4f":
        declared.ending = _jp2_ending(file, stop) if salvage else ""
        _codestream(file, 0, declared)
        return declared
    codestream = -1
    for kind, begin, end in boxes(file, 0, stop, cut=salvage):
        if kind == b"jp2c" and codestream < 0:
            codestream = begin
            declared.ending = _jp2_ending(file, stop) if salvage and end == stop else ""
        elif kind == b"jp2h":
            for inner, start, after in boxes(file, begin, end):
                _jp2_header_box(file, inner, start, after, declared)
        elif kind == b"uuid":
            _jp2_uuid(file, begin, end, declared.blocks)
        elif kind not in _JP2_BOXES_PLAIN:
            declared.blocks.drop(f"{kind.decode('latin-1').strip()!r} box")
    if codestream < 0:
        raise _cut("JPEG 2000")
    _codestream(file, codestream, declared)
    return declared


def _jp2_ending(file: BinaryIO, stop: int) -> str:
    """The missing bytes of the end marker: without it the last tile is not decoded, even if complete."""
    file.seek(max(0, stop - 2))
    last = file.read(2)
    return "" if last == b"\xff\xd9" else "\xd9" if last[1:] == b"\xff" else "\xff\xd9"


def _codestream(file: BinaryIO, at: int, declared: Declared) -> None:
    file.seek(at)
    head = file.read(42)
    if len(head) < 42 or head[:4] != b"\xff\x4f\xff\x51":
        raise _cut("JPEG 2000")
    right, bottom, left, upper = struct.unpack_from(">4I", head, 8)
    (count,) = struct.unpack_from(">H", head, 40)
    components = file.read(3 * min(count, 16384))
    if len(components) < 3 * count or right <= left or bottom <= upper or count == 0:
        raise _cut("JPEG 2000")
    declared.shape_yx = bottom - upper, right - left
    _check_resolutions(declared, components)
    wide, tall = struct.unpack_from(">2I", head, 24)
    tiles = -(-declared.shape_yx[0] // max(1, tall)) * -(-declared.shape_yx[1] // max(1, wide))
    if tiles * count > _JP2_MOST_TILES:
        raise ScanUnsupportedError(
            f"a JPEG 2000 of {tiles} tiles of {wide} x {tall} pixels, whose list takes too much memory; "
            "rewrite it in larger ones"
        )
    # OpenJPEG holds a tile's coded bytes and lists of its code blocks.
    declared.lists_bytes = min(wide * tall * count, _JP2_MOST_LISTS_BYTES) + file.seek(0, 2) // tiles
    depths = {components[3 * n] for n in range(min(count, 3))}
    if len(depths) > 1:
        raise ScanUnsupportedError("a JPEG 2000 of components of unequal depth; convert it to 8- or 16-bit gray or RGB")
    depth = depths.pop()
    bits = (depth & 0x7F) + 1
    declared.top = 2**bits - 1 if not depth & 0x80 and bits not in (8, 16) and bits < 16 else 0


def _check_resolutions(declared: Declared, components: bytes) -> None:
    """Refuse subsampling other than sYCC 4:2:0, which GDAL enlarges and converts to RGB itself."""
    steps = [components[n : n + 2] for n in range(1, len(components), 3)]
    if len(set(steps)) < 2:
        return
    if not declared.sycc or steps[:3] != [b"\1\1", b"\2\2", b"\2\2"] or set(steps[3:]) - {b"\1\1"}:
        raise ScanUnsupportedError(
            "a JPEG 2000 of components of unequal resolution, which is not handled; convert it to 8- or 16-bit RGB"
        )
    declared.sycc = False


def _jp2_header_box(file: BinaryIO, kind: bytes, start: int, after: int, declared: Declared) -> None:
    if kind == b"colr":
        file.seek(start)
        head = file.read(7)
        if head[:1] in (b"\2", b"\3") and declared.sycc:
            declared.blocks.drop("ICC profile (a second word on colour; the samples are taken as sYCC)")
        elif head[:1] in (b"\2", b"\3"):
            file.seek(start + 3)
            declared.blocks.take("icc", file.read(min(after - start - 3, BLOCK_LIMIT_BYTES + 1)))
        elif head[:1] == b"\1" and "icc" not in declared.blocks.parts:
            _take_space(int.from_bytes(head[3:7], "big"), declared)
    elif kind == b"res ":
        for inner, begin, end in boxes(file, start, after):
            if inner in (b"resc", b"resd") and end - begin >= 10 and declared.resolution is None:
                file.seek(begin)
                ny, dy, nx, dx, ey, ex = struct.unpack(">4H2b", file.read(10))
                if ny and dy and nx and dx and abs(ex) < 20 and abs(ey) < 20:
                    declared.resolution = (nx / dx * 10.0**ex / 100, ny / dy * 10.0**ey / 100, "cm")


def _take_space(space: int, declared: Declared) -> None:
    """Take an enumerated colour space (ISO/IEC 15444-1, table I.10; 15444-2, table M.25)."""
    if space == _SYCC:
        declared.sycc = True
    elif space not in _GRAY_OR_RGB:
        name = _ENUMERATED.get(space, f"colour space {space}")
        raise ScanUnsupportedError(
            f"a JPEG 2000 in {name}, which is not handled; convert it to 8- or 16-bit gray or RGB"
        )


def _jp2_uuid(file: BinaryIO, begin: int, end: int, blocks: Blocks) -> None:
    file.seek(begin)
    uuid = file.read(16)
    body = file.read(min(end - begin - 16, BLOCK_LIMIT_BYTES + 1)) if end - begin > 16 else b""
    if uuid == _XMP_UUID:
        blocks.take("xmp", body)
    elif uuid == _IPTC_UUID:
        blocks.take("iptc", body)
    elif uuid == _PHOTOSHOP_UUID:
        blocks.take("photoshop", body)
    elif uuid == _EXIF_UUID:
        blocks.take("exif", body.removeprefix(b"EXIF\0\0").removeprefix(b"Exif\0\0"))
    elif uuid != _GEOJP2_UUID:
        blocks.drop(f"uuid box {uuid.hex()}")


def webp(file: BinaryIO, salvage: bool) -> Declared:
    stop = file.seek(0, 2)
    file.seek(4)
    if int.from_bytes(file.read(4), "little") + 8 > stop and not salvage:
        raise ScanDamagedError("cut off: the WebP is shorter than it says; copy it again from its source")
    declared = Declared(compression="webp")
    for name, begin, size in riff_chunks(file, stop):
        file.seek(begin)
        if name == b"VP8X":
            flags = file.read(1)
            if flags and flags[0] & 2:
                raise ScanUnsupportedError("an animated WebP, which is not handled; save the wanted frame alone")
        elif name == b"VP8 " and len(head := file.read(10)) == 10:
            width, height = struct.unpack_from("<HH", head, 6)
            declared.shape_yx = height & 0x3FFF, width & 0x3FFF
        elif name == b"VP8L" and len(head := file.read(5)) == 5:
            packed = int.from_bytes(head[1:], "little")
            declared.shape_yx = (packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1
        elif name in (b"ICCP", b"EXIF", b"XMP "):
            kind = {b"ICCP": "icc", b"EXIF": "exif", b"XMP ": "xmp"}[name]
            declared.blocks.take(kind, file.read(min(size, BLOCK_LIMIT_BYTES + 1)).removeprefix(b"Exif\0\0"))
    if declared.shape_yx is None:
        raise _cut("WebP")
    declared.whole_bytes = declared.shape_yx[0] * declared.shape_yx[1] * 4
    return declared


def gif(file: BinaryIO, salvage: bool) -> Declared:
    """The first frame; the library decodes all of them on opening, so all of them count."""
    declared = Declared(compression="lzw")
    stop = file.seek(0, 2)
    file.seek(10)
    flags = file.read(3)
    if len(flags) < 3:
        raise _cut("GIF")
    file.seek(13 + (3 * 2 ** ((flags[0] & 7) + 1) if flags[0] & 0x80 else 0))
    frames, closed = 0, True
    while frames < _MAX_FRAMES and (kind := file.read(1)) in (b"!", b","):
        if kind == b"!":
            _gif_extension(file, declared.blocks)
        else:
            head = file.read(9)
            if len(head) < 9:
                break
            width, height = struct.unpack_from("<HH", head, 4)
            frames += 1
            declared.shape_yx = declared.shape_yx or (height, width)
            declared.whole_bytes += height * width
            file.seek((3 * 2 ** ((head[8] & 7) + 1) if head[8] & 0x80 else 0) + 1, 1)
        while size := file.read(1):
            if size == b"\0":
                break
            file.seek(size[0], 1)
        closed = size == b"\0"
    if declared.shape_yx is None:
        raise _cut("GIF")
    if not kind and file.tell() == stop:
        declared.ending = ";" if closed else "\0;"
        declared.blocks.drop(WITHOUT_END)
    if frames > 1:
        declared.blocks.drop("frame 2" if frames == 2 else f"frames 2-{frames}")
    return declared


def _gif_extension(file: BinaryIO, blocks: Blocks) -> None:
    """Read an extension's label and, of an application's, the name; the caller skips the rest."""
    label = file.read(1)
    if label == b"\xfe":
        blocks.drop("comment")
    elif label == b"\xff":
        name = file.read((file.read(1) or b"\0")[0])
        if not name.startswith((b"NETSCAPE", b"ANIMEXTS")):
            blocks.drop(f"application extension {printable(name.decode('latin-1'))!r}")


def bmp(file: BinaryIO, salvage: bool) -> Declared:
    file.seek(10)
    start = int.from_bytes(file.read(4), "little")
    head = file.read(40)
    if len(head) < 40 and not (len(head) >= _BMP_OF_OS2 and head[:4] == b"\x0c\0\0\0"):
        raise _cut("BMP")
    head = head.ljust(40, b"\0")
    size, width, height = struct.unpack_from("<Iii", head)
    bits, compression = struct.unpack_from("<HI", head, 14)
    x, y = struct.unpack_from("<ii", head, 24)
    if size == _BMP_OF_OS2:
        width, height, bits = struct.unpack_from("<HH2xH", head, 4)
        compression = x = y = 0
    elif size < 40:
        raise ScanUnsupportedError("a BMP of OS/2 2.x, which is not handled; convert it to PNG or TIFF")
    if compression not in (0, 1, 2, 3):
        raise ScanUnsupportedError(
            f"a BMP of compression {compression}, which is not handled; convert it to PNG or TIFF"
        )
    if width <= 0:
        raise ScanUnreadableError(f"declares a width of {width}; restore it from its source")
    declared = Declared((abs(height), width), compression="rle" if compression in (1, 2) else "none")
    if compression in (1, 2):
        declared.whole_bytes = 2 * abs(height) * width
    else:
        row_bytes = (bits * width + 31) // 32 * 4
        missing = start + row_bytes * abs(height) - file.seek(0, 2)
        if 0 < missing <= row_bytes - -(bits * width // -8):  # only padding of the last row
            declared.ending = "\0" * missing
        there = _rows_in(file, start, row_bytes, abs(height), len(declared.ending))
        declared.present = (height - there, height) if height > 0 else (0, there)
    if compression == _BMP_MASKS and bits == 32 and size == 40:
        declared.order = _bmp_order(file)
    if size >= 124:
        _bmp_profile(file, declared.blocks)
    if bits == 32 and (size == 40 or compression == 0):
        declared.blocks.drop("the fourth byte of each pixel")
    if x > 0 and y > 0:
        declared.resolution = (x / 100, y / 100, "cm")
    return declared


def _bmp_order(file: BinaryIO) -> tuple[int, ...]:
    """Channel order by the 32-bit masks of red, green and blue. GDAL ignores them and takes the third byte for red."""
    file.seek(14 + 40)
    masks = struct.unpack("<3I", file.read(12).ljust(12, b"\0"))
    if sorted(masks) != sorted(_BMP_BYTES):
        listed = ", ".join(f"{mask:08X}" for mask in masks)
        raise ScanUnsupportedError(f"a BMP of masks {listed}, which is not handled; convert it to PNG or TIFF")
    return tuple(_BMP_BYTES.index(mask) for mask in masks)


def _rows_in(file: BinaryIO, start: int, row_bytes: int, height: int, ending_bytes: int = 0) -> int:
    """Number of complete rows of ``row_bytes`` in the file, from ``start`` on and including the appended ending."""
    return min(height, max(0, file.seek(0, 2) + ending_bytes - start) // max(1, row_bytes))


def _bmp_profile(file: BinaryIO, blocks: Blocks) -> None:
    """Take the profile of a BITMAPV5HEADER, if it is embedded and not in another file."""
    file.seek(14 + 56)
    kind = file.read(4)
    file.seek(14 + 112)
    start, size = struct.unpack("<II", file.read(8).ljust(8, b"\0"))
    if kind == b"DEBM":
        file.seek(14 + start)
        blocks.take("icc", file.read(min(size, BLOCK_LIMIT_BYTES + 1)))
    elif kind == b"KNIL":
        blocks.drop("ICC profile in another file (the samples are taken as sRGB)")


@dataclass(frozen=True)
class PnmHeader:
    """Header of one Netpbm picture; ``end`` is the first byte after it."""

    kind: bytes
    shape_yx: tuple[int, int]
    top: int
    end: int
    commented: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of a row; for packed kinds only."""
        width = self.shape_yx[1]
        if self.kind == b"P4":
            return -(-width // 8)
        return width * (3 if self.kind == b"P6" else 1) * (1 if self.top < 256 else 2)


def pnm_header(file: BinaryIO, at: int = 0) -> PnmHeader:
    """The header that begins ``at``. Raises ScanUnreadableError if there is none."""
    file.seek(at)
    head = file.read(_PNM_HEADER_BYTES)
    fields = _PNM_HEADER.match(head) or _PBM_HEADER.match(head)
    if fields is None:
        raise _cut("PNM")
    # Do not let Python parse numbers with more digits than any picture needs.
    width, height, top = (int(number) if len(number) < 10 else 0 for number in (*fields.groups()[1:], b"1")[:3])
    if not 1 <= top <= 65535:
        raise ScanUnreadableError(f"declares a largest sample of {top}; restore it from its source")
    return PnmHeader(fields[1], (height, width), top, at + fields.end(), b"#" in fields.group())


def pnm_pictures(file: BinaryIO) -> str:
    """Which pictures follow the first one in a file of packed pictures; empty if none do."""
    at = found = 0
    stop = file.seek(0, 2)
    while found < _MAX_FRAMES and at < stop:
        try:
            header = pnm_header(file, at)
        except ScanUnreadableError:
            break
        if header.kind in _PNM_TEXT:
            break
        found += 1
        at = header.end + header.shape_yx[0] * header.row_bytes
    return "" if found < 2 else "picture 2" if found == 2 else f"pictures 2-{found}"


def pnm(file: BinaryIO, salvage: bool) -> Declared:
    header = pnm_header(file)
    declared = Declared(header.shape_yx, top=0 if header.top in (255, 65535) else header.top)
    declared.present = 0, _rows_in(file, header.end, header.row_bytes, header.shape_yx[0])
    if header.commented:
        declared.blocks.drop("comment")
    declared.blocks.drop(pnm_pictures(file))
    return declared


def sgi(file: BinaryIO, salvage: bool) -> Declared:
    file.seek(0)
    head = file.read(108)
    if len(head) < 108:
        raise _cut("SGI")
    rle, sample_bytes, _, width, height = struct.unpack_from(">BBHHH", head, 2)
    if sample_bytes != 1:
        raise ScanUnsupportedError("an SGI picture of 16 bits, which is not handled; convert it to TIFF or PNG")
    declared = Declared((height, width), compression="rle" if rle else "none")
    name = head[24:104].split(b"\0")[0].decode("latin-1").strip()
    if name.isprintable() and name not in ("", "no name"):
        declared.blocks.texts[269] = ascii_value(name)
    return declared


def nitf(file: BinaryIO, salvage: bool) -> Declared:
    declared = Declared(compression="")
    declared.blocks.drop("the fields of the NITF header")
    return declared


def hfa(file: BinaryIO, salvage: bool) -> Declared:
    """Erdas Imagine. Its tree may name external files with the pixels, which must not be opened: walk the tree first.

    GDAL looks nodes up by name or type, ignoring case. Files of overviews (RRDNamesList) may be named: GDAL opens them
    only on demand, and nothing here asks for overviews.
    """
    file.seek(16)
    (header,) = struct.unpack("<I", file.read(4).ljust(4, b"\0"))
    file.seek(header + 8)
    (root,) = struct.unpack("<I", file.read(4).ljust(4, b"\0"))
    pending, seen = [root], set[int]()
    while pending and len(seen) < _MAX_NODES:
        at = pending.pop()
        if at == 0 or at in seen:
            continue
        seen.add(at)
        file.seek(at)
        node = file.read(124)
        if len(node) < 124:
            raise _cut("Erdas Imagine")
        following, _, _, child = struct.unpack_from("<4I", node)
        name, kind = (part.split(b"\0")[0].lower() for part in (node[24:88], node[88:120]))
        if name.startswith(_HFA_ELSEWHERE) or kind.startswith(_HFA_ELSEWHERE):
            raise ScanUnsupportedError(
                "an Erdas Imagine file that refers to other files; convert it to a single GeoTIFF"
            )
        pending += [following, child]
    if pending:
        raise ScanUnreadableError(f"a tree of more than {_MAX_NODES} nodes; restore it from its source")
    return Declared(compression="")
