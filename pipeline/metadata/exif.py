"""EXIF blocks: tags with their raw values to a TIFF structure and back.

A block is the TIFF structure that a JPEG's APP1 holds after "Exif": a first directory, which points to those of Exif,
GPS and interoperability. The second one in its chain (IFD1) describes a thumbnail and is not read: it shows the picture
without colours.

Values are little-endian bytes, whatever the order of their block, so that blocks compare tag by tag. Values of type
"undefined" are kept unchanged. If a maker note counts offsets from the start of its block, in another block they would
point to our own texts instead of the camera's: :func:`is_movable_note` finds those that can be moved.

References
----------
Exif 3.0 (CIPA DC-008-2023), 4.6; TIFF 6.0, section 2; of maker notes, what ExifTool knows (MakerNotes.pm, "Base").
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.metadata.model import BLOCK_LIMIT_BYTES, TiffTag

EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
MAKER_NOTE = 37500
# First bytes of notes that have their own byte order and count offsets from their own start: Nikon type 3, Olympus and
# OM System, Fujifilm, Apple, Pentax. Canon, Sony, Panasonic, older Olympus and others count from the block's start.
_MOVABLE_NOTES = (
    b"OLYMPUS\0II",
    b"OLYMPUS\0MM",
    b"OM SYSTEM\0\0\0II",
    b"FUJIFILM",
    b"Apple iOS\0\0\1MM",
    b"Apple iOS\0\0\1II",
    b"PENTAX \0II",
    b"PENTAX \0MM",
)
# fmt: off
STRUCTURE = frozenset((
    *range(254, 260), *range(262, 267), 273, *range(277, 282), 284, *range(288, 294), 301, *range(317, 326), 330, 332,
    334, 336, *range(338, 348), 400, *range(512, 522), *range(529, 533), 559, *range(32995, 32999), 37724,
    EXIF_IFD, GPS_IFD, INTEROP_IFD,
))
# fmt: on
"""Tags of a first directory on how samples are stored in a file and what they mean there; useless in another file."""
DESCRIPTION, SOFTWARE = 270, 305
# Description, software, orientation, resolution, blocks and profile.
OF_PICTURE = STRUCTURE | {DESCRIPTION, SOFTWARE, 274, 282, 283, 296, 700, 33723, 34377, 34675}
"""Tags of a first directory that a written picture defines itself and does not take from its scan."""
# Bytes of one number of each type; a rational is two of them. 129 is the UTF-8 of Exif 3.0, 16-18 are BigTIFF's.
_NUMBER_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 129: 1}
_NUMBER_BYTES |= {16: 8, 17: 8, 18: 8}
_RATIONALS = (5, 10)


@dataclass(frozen=True)
class Exif:
    """The tags of an EXIF block, by directory, each sorted by code and without pointers to another.

    Attributes
    ----------
    ifd0 : on the picture: device, artist, dates, and possibly its structure in the original file
    exif : on the exposure
    gps : on the location
    interop : on the rules that the file follows
    """

    ifd0: tuple[TiffTag, ...] = ()
    exif: tuple[TiffTag, ...] = ()
    gps: tuple[TiffTag, ...] = ()
    interop: tuple[TiffTag, ...] = ()


def value_bytes(kind: int) -> int:
    """Bytes of one value of a TIFF data type; 0 for an unknown type.

    >>> value_bytes(3), value_bytes(5), value_bytes(99)
    (2, 8, 0)
    """
    return _NUMBER_BYTES.get(kind, 0) * (2 if kind in _RATIONALS else 1)


def is_movable_note(note: bytes) -> bool:
    """True if a maker note keeps its meaning when it is moved to another block.

    >>> is_movable_note(b"FUJIFILM\\x0c\\0\\0\\0"), is_movable_note(b"Panasonic\\0\\0\\0")
    (True, False)
    """
    # Nikon's has a version between its name and its TIFF header.
    return note.startswith(_MOVABLE_NOTES) or (note.startswith(b"Nikon\0\2") and note[10:14] in (b"II*\0", b"MM\0*"))


def swapped(kind: int, value: bytes) -> bytes:
    """``value`` of a TIFF data type in the other byte order.

    >>> swapped(3, bytes([1, 2, 3, 4]))
    b'\\x02\\x01\\x04\\x03'
    """
    size = _NUMBER_BYTES.get(kind, 1)
    turned = bytearray(len(value))
    for place in range(size):
        turned[place::size] = value[size - 1 - place :: size]
    return bytes(turned)


def parse_exif(block: bytes) -> Exif:
    """The tags of ``block``, of either byte order, with or without "Exif" in front.

    Tags of unknown type are left out (TIFF 6.0, section 2), and of several tags with one code all but the first.

    Raises
    ------
    ValueError : not an EXIF block, or a damaged one; one line
    """
    parser = _Parser(block)
    ifd0 = parser.directory(parser.first)
    exif = parser.pointed_to(ifd0, EXIF_IFD)
    gps = parser.pointed_to(ifd0, GPS_IFD)
    interop = parser.pointed_to(exif, INTEROP_IFD)
    return Exif(*(_without_pointers(tags.values()) for tags in (ifd0, exif, gps, interop)))


def readable_tags(block: bytes) -> dict[int, TiffTag]:
    """The undamaged tags of a block's first directory, by code; empty if it is not an EXIF block."""
    try:
        parser = _Parser(block)
        return parser.readable(parser.first)
    except ValueError:
        return {}


class _Parser:
    """Reads directories of one block; their values may total at most twice the block's size."""

    def __init__(self, block: bytes) -> None:
        block = block.removeprefix(b"Exif\0\0")
        if len(block) > BLOCK_LIMIT_BYTES:
            raise ValueError(
                f"an EXIF block of {len(block)} bytes, above the limit of {BLOCK_LIMIT_BYTES}; leave it out"
            )
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
        if order is None or len(block) < 8:
            begins = block[:8].hex() or "nothing"
            raise ValueError(f"an EXIF block that begins with {begins}, no TIFF header; leave it out")
        self._block, self._order = block, order
        self.first: int = struct.unpack_from(order + "I", block, 4)[0]
        self._left_bytes = 2 * len(block)  # some writers let equal values overlap, but not by more than this
        self._seen: set[int] = set()

    def directory(self, offset: int) -> dict[int, TiffTag]:
        if offset in self._seen:
            raise ValueError(f"damaged EXIF: two directories at byte {offset}; leave the block out")
        self._seen.add(offset)
        count = struct.unpack(self._order + "H", self._bytes(offset, 2))[0]
        entries = self._bytes(offset + 2, 12 * count)
        tags: dict[int, TiffTag] = {}
        for at in range(0, 12 * count, 12):
            tag = self._tag(entries, at)
            if value_bytes(tag.type):
                tags.setdefault(tag.code, tag)
        return dict(sorted(tags.items()))

    def readable(self, offset: int) -> dict[int, TiffTag]:
        """The readable tags of a directory that may be damaged."""
        count = struct.unpack(self._order + "H", self._bytes(offset, 2))[0]
        entries = self._block[offset + 2 : offset + 2 + 12 * count]
        tags: dict[int, TiffTag] = {}
        for at in range(0, len(entries) - 11, 12):
            with contextlib.suppress(ValueError):
                tag = self._tag(entries, at)
                tags.setdefault(tag.code, tag)
        return tags

    def _tag(self, entries: bytes, at: int) -> TiffTag:
        code, kind, values = struct.unpack_from(self._order + "HHI", entries, at)
        return TiffTag(code, kind, values, self._value(kind, values, entries[at + 8 : at + 12]))

    def pointed_to(self, tags: dict[int, TiffTag], code: int) -> dict[int, TiffTag]:
        pointer = tags.get(code)
        if pointer is None:
            return {}
        if pointer.type not in (4, 13) or pointer.count != 1:
            raise ValueError(f"damaged EXIF: pointer {code} is no offset; leave the block out")
        return self.directory(int.from_bytes(pointer.value, "little"))

    def _value(self, kind: int, count: int, field: bytes) -> bytes:
        size = value_bytes(kind) * count
        self._left_bytes -= size
        if self._left_bytes < 0:
            raise ValueError(f"damaged EXIF: values of more than {2 * len(self._block)} bytes in all; leave it out")
        value = field[:size] if size <= 4 else self._bytes(struct.unpack(self._order + "I", field)[0], size)
        return value if self._order == "<" else swapped(kind, value)

    def _bytes(self, offset: int, size: int) -> bytes:
        if offset + size > len(self._block):
            raise ValueError(
                f"damaged EXIF: {size} bytes at byte {offset} of a block of {len(self._block)}; leave the block out"
            )
        return self._block[offset : offset + size]


def exif_block(
    ifd0: tuple[TiffTag, ...],
    exif: tuple[TiffTag, ...] = (),
    gps: tuple[TiffTag, ...] = (),
    interop: tuple[TiffTag, ...] = (),
) -> bytes:
    """A little-endian block of these tags, sorted; empty if there are none. Pointers are recomputed.

    Raises ValueError if the value of a tag does not have the size given by its type and count.
    """
    if not (ifd0 or exif or gps or interop):
        return b""
    header = b"II*\0\x08\0\0\0"
    interop_at = len(header) + directory_bytes(ifd0, bool(exif or interop) + bool(gps))
    # Each directory follows the previous one; an empty one takes no bytes and gets no pointer.
    exif_at = interop_at + (directory_bytes(interop) if interop else 0)
    gps_at = exif_at + (directory_bytes(exif, bool(interop)) if exif or interop else 0)
    pointers = ([(EXIF_IFD, exif_at)] if exif or interop else []) + ([(GPS_IFD, gps_at)] if gps else [])
    block = header + directory(ifd0, len(header), pointers)
    if interop:
        block += directory(interop, interop_at)
    if exif or interop:
        block += directory(exif, exif_at, [(INTEROP_IFD, interop_at)] if interop else [])
    return block + (directory(gps, gps_at) if gps else b"")


def directory_bytes(tags: Iterable[TiffTag], pointers: int = 0, bigtiff: bool = False) -> int:
    """Size in bytes of a :func:`directory` with these tags and this number of pointers."""
    return len(directory(tags, 0, (), bigtiff)) + pointers * (20 if bigtiff else 12)


def directory(
    tags: Iterable[TiffTag], offset: int, pointers: Iterable[tuple[int, int]] = (), bigtiff: bool = False
) -> bytes:
    """A little-endian TIFF directory for byte ``offset`` (even) of its file, followed by its values.

    Parameters
    ----------
    pointers : code and offset of directories to point to
    bigtiff : use the longer fields of a BigTIFF
    """
    kept = {tag.code: tag for tag in reversed(_without_pointers(tags))}
    kept |= {code: TiffTag(code, 4, 1, struct.pack("<I", at)) for code, at in pointers if not bigtiff}
    kept |= {code: TiffTag(code, 16, 1, struct.pack("<Q", at)) for code, at in pointers if bigtiff}
    if len(kept) > 0xFFFF:
        raise ValueError(f"{len(kept)} tags: a TIFF directory holds 65535; leave some out")
    number, entry, room = ("<Q", "<HHQ", 8) if bigtiff else ("<H", "<HHI", 4)
    head = struct.pack(number, len(kept))
    values_at = offset + len(head) + (len(kept) * (struct.calcsize(entry) + room)) + room
    entries, values = bytearray(), bytearray()
    for tag in sorted(kept.values(), key=lambda tag: tag.code):
        if len(tag.value) != value_bytes(tag.type) * tag.count:
            raise ValueError(
                f"tag {tag.code}: {len(tag.value)} bytes for {tag.count} values of type {tag.type}; leave it out"
            )
        field = tag.value
        if len(field) > room:
            field = (values_at + len(values)).to_bytes(room, "little")
            values += tag.value + b"\0" * (len(tag.value) % 2)
        entries += struct.pack(entry, tag.code, tag.type, tag.count) + field.ljust(room, b"\0")
    return head + bytes(entries) + b"\0" * room + bytes(values)


def _without_pointers(tags: Iterable[TiffTag]) -> tuple[TiffTag, ...]:
    return tuple(tag for tag in tags if tag.code not in (EXIF_IFD, GPS_IFD, INTEROP_IFD))


def tiff_text(text: str) -> bytes:
    """``text`` as a TIFF string in UTF-8, without the final NUL; unpaired surrogates from file names are escaped."""
    return text.replace("\0", " ").encode("utf-8", "backslashreplace")
