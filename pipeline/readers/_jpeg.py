"""The headers of a JPEG file: all that it declares before its coded data.

References
----------
ITU-T T.81, B.1 and B.2; JFIF 1.02; Exif 3.0 (CIPA DC-008-2023), 4.7; ICC.1:2022, B.4; XMP specification part 3, 1.1.3;
ITU-T T.872, 6.5 (Adobe's APP14); DCF 2.0 (CIPA DC-009-2010), annex A (Adobe RGB).
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.errors import ScanDamagedError, ScanUnsupportedError
from pipeline.metadata import exif, xmp
from pipeline.metadata.model import BLOCK_LIMIT_BYTES
from pipeline.readers._base import check_size
from pipeline.readers._metadata_blocks import Blocks, Resolution, exif_facts, printable
from pipeline.types import ReadOptions

WHOLE_LIMIT_BYTES = 2**31

_LEAST_PART_BYTES = 256  # memory that even an empty part takes

_EXIF = b"Exif\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_EXTENDED = b"http://ns.adobe.com/xmp/extension/\0"
_ICC = b"ICC_PROFILE\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)


@dataclass
class JpegHeader:
    """``adobe`` is the colour transform that Adobe's segment declares, -1 without one. ``endless``: the end-of-image
    marker is missing; then ``begun`` says that each of its scans began, and ``coarse`` that the scans which give every
    block a value are complete. ``jfif``: the file is JFIF, which has no RGB; ``names`` are its components' names."""

    shape_yx: tuple[int, int] = (0, 0)
    channels: int = 0
    bits: int = 8
    progressive: bool = False
    endless: bool = False
    begun: bool = False
    coarse: bool = False
    adobe: int = -1
    jfif: bool = False
    names: bytes = b""
    resolution: Resolution | None = None
    blocks: Blocks = field(default_factory=Blocks)

    @property
    def is_ycc(self) -> bool:
        """True if three components are luma and chroma: by JFIF's segment, else by Adobe's, else by their names.

        This is the rule of libjpeg-turbo (jdapimin.c, default_decompress_parms), and so of nearly every program.
        """
        if self.channels != 3 or self.jfif:
            return self.channels == 3
        return self.names != b"RGB" if self.adobe < 0 else self.adobe != 0

    @property
    def whole_bytes(self) -> int:
        """Bytes that decoding allocates at once: the coefficients of a progressive JPEG; 0 if it decodes by rows."""
        return self.shape_yx[0] * self.shape_yx[1] * self.channels * 2 if self.progressive else 0


@dataclass
class _Parts:
    """The parts of a block that is spread over several segments, by number or first byte, up to the size limit."""

    parts: dict[int, bytes] = field(default_factory=dict)
    met: int = 0
    too_many: bool = False
    _left_bytes: int = BLOCK_LIMIT_BYTES

    def take(self, at: int, part: bytes) -> None:
        self.met += 1
        self._left_bytes -= max(len(part), _LEAST_PART_BYTES)
        if self._left_bytes < 0:
            self.too_many = True
            self.parts.clear()
        else:
            self.parts.setdefault(at, part)

    def joined(self) -> bytes:
        return b"".join(part for _, part in sorted(self.parts.items()))

    def follow_each_other(self) -> bool:
        end = 0
        for at, part in sorted(self.parts.items()):
            if at != end:
                return False
            end += len(part)
        return True


def parse_jpeg(file: BinaryIO, reading: ReadOptions) -> JpegHeader:
    header = JpegHeader()
    chunks = {kind: _Parts() for kind in ("icc", "photoshop", "extended")}
    for marker, segment in _segments_of(file):
        if marker == 0xFE or 0xE0 <= marker <= 0xEF:
            _take(header, chunks, marker, segment)
        elif marker == 0xF7:
            raise ScanUnsupportedError("a JPEG-LS of a kind that is not handled; convert it to TIFF")
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if header.channels or len(segment) < 6:
                break
            _take_frame(header, marker, segment, reading.limit_pixels)
    if not header.channels:
        raise ScanDamagedError("damaged JPEG: no frame header; restore it from its source")
    scans = file.tell() - 2
    if not _has_end(file):
        header.endless = True
        begun, whole = _scans_in(file, scans)
        header.begun = begun.all_of(header)
        header.coarse = header.progressive and len(whole.means) >= header.channels
    _join(header.blocks, chunks)
    header.resolution = _exact(header.resolution, exif_facts(header.blocks.parts.get("exif", b""))[0])
    return header


def is_adobe_rgb(exif_block: bytes) -> bool:
    """True if EXIF marks Adobe RGB as DCF defines it: ColorSpace "uncalibrated" and interoperability index "R03"."""
    try:
        found = exif.parse_exif(exif_block)
    except ValueError:
        return False
    uncalibrated = any(tag.code == 0xA001 and tag.value[:2] == b"\xff\xff" for tag in found.exif)
    return uncalibrated and any(tag.code == 1 and tag.value[:3] == b"R03" for tag in found.interop)


def _exact(jfif: Resolution | None, exif: Resolution | None) -> Resolution | None:
    """EXIF's resolution if JFIF's, which is in whole numbers, is the same rounded; else JFIF's."""
    if jfif is None or exif is None or exif[2] == "none":
        return jfif
    factor = {("inch", "cm"): 1 / 2.54, ("cm", "inch"): 2.54}.get((exif[2], jfif[2]), 1.0)
    is_rounded = all(abs(fine * factor - whole) <= 0.5 for fine, whole in zip(exif[:2], jfif[:2], strict=True))
    return exif if is_rounded else jfif


def _take_frame(header: JpegHeader, marker: int, segment: bytes, limit_pixels: int) -> None:
    header.bits, header.channels = segment[0], segment[5]
    header.shape_yx = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
    (height, width), channels = header.shape_yx, header.channels
    header.names = segment[6::3][:channels]
    header.progressive = marker == 0xC2
    if marker not in (0xC0, 0xC1, 0xC2):
        raise ScanUnsupportedError("a lossless or arithmetic-coded JPEG, which is not handled; convert it to TIFF")
    if header.bits not in (8, 12) or channels not in (1, 3, 4) or (header.bits == 12 and channels == 4):
        raise ScanUnsupportedError(
            f"a JPEG of {channels} channels of {header.bits} bits, which is not handled; convert it to gray or RGB"
        )
    check_size(header.shape_yx, limit_pixels)
    if header.whole_bytes > WHOLE_LIMIT_BYTES:
        raise ScanUnsupportedError(
            f"a progressive JPEG of {width} x {height} pixels, which must be decoded at once; save it as baseline"
        )


def _take(header: JpegHeader, chunks: dict[str, _Parts], marker: int, segment: bytes) -> None:
    """Take one application segment or comment."""
    blocks = header.blocks
    if marker == 0xE0 and segment[:5] == b"JFIF\0":
        header.jfif = True
        unit = {1: "inch", 2: "cm"}.get(segment[7]) if len(segment) >= 12 else None
        x, y = int.from_bytes(segment[8:10], "big"), int.from_bytes(segment[10:12], "big")
        if unit and x and y:
            header.resolution = (float(x), float(y), unit)
    elif marker == 0xE0 and segment[:5] == b"JFXX\0":
        blocks.drop("thumbnail (JFXX)")
    elif marker == 0xE1 and segment.startswith(_EXIF):
        blocks.take("exif", segment[6:])
    elif marker == 0xE1 and segment.startswith(_XMP):
        blocks.take("xmp", segment[len(_XMP) :])
    elif marker == 0xE1 and segment.startswith(_XMP_EXTENDED):
        # 32 letters of a digest, the size of the whole, the offset of this part
        at = len(_XMP_EXTENDED) + 36
        chunks["extended"].take(int.from_bytes(segment[at : at + 4], "big"), segment[at + 4 :])
    elif marker == 0xE2 and segment.startswith(_ICC) and len(segment) > len(_ICC) + 2:
        chunks["icc"].take(segment[len(_ICC)], segment[len(_ICC) + 2 :])
    elif marker == 0xED and segment.startswith(_PHOTOSHOP):
        chunks["photoshop"].take(chunks["photoshop"].met, segment[len(_PHOTOSHOP) :])
    elif marker == 0xEE and segment[:5] == b"Adobe" and len(segment) >= 12:
        header.adobe = segment[11]
    elif marker == 0xFE:
        blocks.drop(f"comment {printable(segment.decode('latin-1').strip())!r}")
    else:
        name = segment[:32].split(b"\0")[0].decode("latin-1")
        blocks.drop(f"APP{marker - 0xE0} segment {printable(name)!r}")


def _join(blocks: Blocks, chunks: dict[str, _Parts]) -> None:
    for kind, parts in chunks.items():
        if parts.too_many:
            what = "extended XMP" if kind == "extended" else kind
            blocks.drop(f"{what} of several segments, above the limit of {BLOCK_LIMIT_BYTES} bytes")
        elif kind != "extended":
            blocks.take(kind, parts.joined())
        elif parts.met:
            _join_extended(blocks, parts)


def _join_extended(blocks: Blocks, parts: _Parts) -> None:
    if not parts.follow_each_other():
        blocks.drop("extended XMP (parts of it are missing)")
        return
    try:
        blocks.parts["xmp"] = xmp.with_extended(blocks.parts.get("xmp", b""), parts.joined())
    except ValueError as error:
        blocks.drop(f"extended XMP ({error})")


def _segments_of(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Marker codes and their segments, up to the first scan."""
    file.seek(2)
    while file.read(1) == b"\xff":
        marker = 0xFF
        while marker == 0xFF:  # fill bytes
            marker = (file.read(1) or b"\0")[0]
        if marker in (0x00, 0xD9, 0xDA):
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        length = int.from_bytes(file.read(2), "big")
        segment = file.read(max(0, length - 2))
        if length < 2 or len(segment) < length - 2:
            return
        yield marker, segment


def _has_end(file: BinaryIO, chunk_bytes: int = 2**20) -> bool:
    """Look for the end-of-image marker, from the end of the file; coded data cannot contain those two bytes."""
    start = file.tell()
    stop = file.seek(0, 2)
    after = b""
    while stop > start:
        begin = max(start, stop - chunk_bytes)
        file.seek(begin)
        chunk = file.read(stop - begin)
        if b"\xff\xd9" in chunk + after:
            return True
        after, stop = chunk[:1], begin
    return False


@dataclass
class _Scans:
    """What scans deliver, by component: the mean of each block, possibly coarse, and all bits of its frequencies."""

    means: set[int] = field(default_factory=set)
    full: dict[int, set[int]] = field(default_factory=dict)

    def add(self, head: bytes) -> None:
        """Take the header of a scan (T.81, B.2.3)."""
        first, last, bits = head[2 * head[0] + 1 : 2 * head[0] + 4]
        for component in head[1 : 2 * head[0] : 2]:
            if first == 0 and not bits >> 4:
                self.means.add(component)
            if not bits & 15:
                self.full.setdefault(component, set()).update(range(first, last + 1))

    def all_of(self, header: JpegHeader) -> bool:
        frequencies = set(range(64)) if header.progressive else set()
        return len(self.full) >= header.channels and all(found >= frequencies for found in self.full.values())


def _scans_in(file: BinaryIO, at: int) -> tuple[_Scans, _Scans]:
    """What all scans of a file deliver, and what its complete scans do: those followed by a marker (T.81, G.1.1.1.1).

    ``at`` is the first byte of the first scan's marker.
    """
    begun, whole = _Scans(), _Scans()
    current = b""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while found := _MARKER.search(data, at):
            if current:
                whole.add(current)
            current = b""
            at, marker = found.start(), found.group()[1]
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            head = data[at + 4 : at + 2 + length]
            if marker == 0xDA and head and len(head) >= 2 * head[0] + 4:
                current = head
                begun.add(head)
            at += 2 + length
    return begun, whole
