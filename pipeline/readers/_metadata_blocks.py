"""Metadata blocks of picture files: collecting them, limiting their size, taking them apart.

References
----------
Exif 3.0 (CIPA DC-008-2023), 4.6 (a TIFF structure); Adobe Photoshop File Formats, "Image Resource Blocks"; XMP
specification part 3, 1.1.3 (extended XMP in JPEG); WebP container (RIFF); ISO/IEC 15444-1, annex I (JP2 boxes).
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pipeline.metadata.exif import readable_tags
from pipeline.metadata.iptc import resources_of
from pipeline.metadata.model import BLOCK_LIMIT_BYTES, EmbeddedMetadata, Georeference, TiffTag

_MAX_BOXES = 10_000
_WHOLE_NUMBERS, _RATIONAL = (3, 4, 9), 5
_IIM = 0x0404

Resolution = tuple[float, float, str]
WITHOUT_END = "what may have followed the picture (its end mark is missing; all of its rows are there)"


@dataclass
class Blocks:
    """The blocks found so far; ``take`` keeps the first of each kind."""

    parts: dict[str, bytes] = field(default_factory=dict)
    texts: dict[int, bytes] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)

    def take(self, kind: str, block: bytes) -> None:
        """``kind`` is a name in :class:`pipeline.metadata.model.EmbeddedMetadata`, such as "icc"."""
        if len(block) > BLOCK_LIMIT_BYTES:
            self.drop(f"{kind} of {len(block)} bytes, above the limit of {BLOCK_LIMIT_BYTES}")
        elif kind in self.parts and self.parts[kind] != block:
            self.drop(f"a second {kind}")
        elif block:
            self.parts[kind] = block
            if kind == "photoshop" and (iptc := iptc_of(block)):
                self.take("iptc", iptc)

    def take_inflated(self, kind: str, block: bytes) -> None:
        inflated = self.inflated(kind, block)
        if inflated is not None:
            self.take(kind, inflated)

    def inflated(self, what: str, block: bytes) -> bytes | None:
        """The contents of a zlib stream; None, with a note, if it is damaged or too large."""
        try:
            stream = zlib.decompressobj()
            contents = stream.decompress(block, BLOCK_LIMIT_BYTES + 1)
        except zlib.error:
            self.drop(f"{what} (damaged)")
            return None
        if len(contents) > BLOCK_LIMIT_BYTES:
            self.drop(f"{what} that inflates to more than {BLOCK_LIMIT_BYTES} bytes")
            return None
        return contents

    def drop(self, what: str) -> None:
        if what and what not in self.dropped and len(self.dropped) < 50:
            self.dropped.append(what)

    def embedded(self, place: Georeference | None = None) -> EmbeddedMetadata:
        tags = tuple(TiffTag(code, 2, len(text), text) for code, text in sorted(self.texts.items()))
        return EmbeddedMetadata(**self.parts, tags=tags, place=place)

    def metadata(self, resolution: Resolution | None = None) -> dict[str, Any]:
        """``resolution``, as given or else from the Exif block, and ``orientation``."""
        of_exif, orientation = exif_facts(self.parts.get("exif", b""))
        known = {"resolution": list(found)} if (found := resolution or of_exif) else {}
        return known | ({"orientation": orientation} if orientation else {})


def printable(text: str, limit: int = 40) -> str:
    """A text from a file, made fit for one line of a message."""
    kept = "".join(letter if letter.isprintable() else "?" for letter in text)
    return kept if len(kept) <= limit else kept[: limit - 3] + "..."


def ascii_value(text: str) -> bytes:
    """The value of a TIFF tag of type ASCII: UTF-8, as in Exif 3.0, with the closing zero."""
    return text.replace("\0", " ").strip().encode() + b"\0"


def exif_facts(exif: bytes) -> tuple[Resolution | None, int | None]:
    """Resolution and orientation in the first directory of a TIFF structure; None for each that is missing."""
    tags = readable_tags(exif)
    x, y = _number(tags.get(282)), _number(tags.get(283))
    unit = {2: "inch", 3: "cm"}.get(int(_number(tags.get(296)) or 2), "none")
    orientation = int(_number(tags.get(274)) or 0)
    return (
        (x, y, unit) if x and y and x > 0 and y > 0 else None,
        orientation if orientation in range(1, 9) else None,
    )


def _number(tag: TiffTag | None) -> float | None:
    """The number in a tag with a single one, else None."""
    if tag is None or tag.count != 1:
        return None
    if tag.type == _RATIONAL:
        top, bottom = struct.unpack("<II", tag.value)
        return top / bottom if bottom else 0.0
    return float(int.from_bytes(tag.value, "little")) if tag.type in _WHOLE_NUMBERS else None


def iptc_of(photoshop: bytes) -> bytes:
    """The IIM datasets in image resource blocks, even if later blocks are damaged; empty if there are none."""
    with contextlib.suppress(ValueError):
        for resource in resources_of(photoshop):
            if resource.number == _IIM:
                return resource.data
    return b""


def riff_chunks(file: BinaryIO, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and size of each chunk of a RIFF file, up to the first that is cut off."""
    at = 12
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(8)
        size = int.from_bytes(head[4:], "little")
        if len(head) < 8 or at + 8 + size > stop:
            return
        yield head[:4], at + 8, size
        at += 8 + size + size % 2


def boxes(file: BinaryIO, start: int, stop: int, *, cut: bool = False) -> Iterator[tuple[bytes, int, int]]:
    """Type, first byte and byte after the last of each box of an ISO base media or JP2 file; with ``cut``, also of a
    last box that is cut off."""
    at = start
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        if at + 8 > stop or len(head) < 8:
            return
        size, begin = int.from_bytes(head[:4], "big"), at + 8
        if size == 1:
            size, begin = int.from_bytes(head[8:16], "big"), at + 16
        end = stop if size == 0 else min(at + size, stop) if cut else at + size
        if end < begin or end > stop:
            return
        yield head[4:8], begin, end
        at = end
