"""Metadata tags of a TIFF's first directory, and the directories of Exif and GPS that it points to.

tifffile writes the tags, with zeros as pointers; then the directories are appended and the pointers are set.

References
----------
TIFF 6.0; Exif 3.0 (CIPA DC-008-2023), 4.6.3; Adobe XMP Specification Part 3, table 12 (tags 700, 33723, 34377);
OGC GeoTIFF 1.1 (19-008r4); GDAL's GTiff driver (42113 GDAL_NODATA, 50844 RPCCoefficientTag); BigTIFF (Aware Systems).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pipeline.errors import UsageError
from pipeline.formats._geo_tags import GEO_TAGS, geo_tags
from pipeline.formats.picture import OutputImage
from pipeline.metadata.exif import EXIF_IFD, GPS_IFD, INTEROP_IFD, STRUCTURE, Exif, directory, parse_exif, value_bytes
from pipeline.metadata.model import EmbeddedMetadata, TiffTag

_RESOLUTION_UNITS = {"none": 1, "inch": 2, "cm": 3, "centimeter": 3}
_DESCRIPTION, _SOFTWARE, _ORIENTATION, _NODATA = 270, 305, 274, 42113
_XMP, _IPTC, _PHOTOSHOP, _ICC = 700, 33723, 34377, 34675
# Tags that come from the picture's own values, not from the scan's tags.
_OWN = frozenset((_ORIENTATION, 282, 283, 296, _XMP, _IPTC, _PHOTOSHOP, _ICC, _NODATA, *GEO_TAGS))
_BYTE, _ASCII, _SHORT, _LONG, _UNDEFINED, _IFD, _LONG8, _SLONG8, _IFD8, _UTF8 = 1, 2, 3, 4, 7, 13, 16, 17, 18, 129
_RATIONALS = {5: "I", 10: "i"}

TagTuple = tuple[int | str, int, int, Any, bool]


@dataclass(frozen=True)
class Tags:
    """The tags of one file.

    Attributes
    ----------
    options : arguments of ``tifffile.TiffWriter.write`` for the main image, "extratags" among them
    every : extra tags that each smaller level has too
    exif : the directories to append; the tags of the first one are in ``options``
    not_carried : as in :class:`pipeline.formats.WriteReport`
    """

    options: dict[str, Any]
    every: list[TagTuple]
    exif: Exif
    not_carried: dict[str, str] = field(default_factory=dict)


def check_tags(picture: OutputImage) -> None:
    """Raises UsageError if TIFF cannot express the resolution or the orientation."""
    if picture.resolution is not None and picture.resolution[2] not in _RESOLUTION_UNITS:
        raise UsageError(f"resolution unit {picture.resolution[2]!r}: TIFF has none, inch and cm; convert it")
    if picture.orientation is not None and not 1 <= picture.orientation <= 8:
        raise UsageError(f"orientation {picture.orientation}: TIFF has 1 to 8; leave it out if it is not known")


def tags_of(picture: OutputImage, bigtiff: bool) -> Tags:
    """All tags of a file except those on how its samples are stored."""
    embedded = picture.embedded
    missing: dict[str, str] = {}
    exif = _parsed(embedded.exif, missing)
    options: dict[str, Any] = {"software": _text(picture.software) or False, "iccprofile": embedded.icc or None}
    if picture.description:
        options["description"] = _text(picture.description)
    if picture.resolution is not None:
        options["resolution"] = picture.resolution[:2]
        options["resolutionunit"] = _RESOLUTION_UNITS[picture.resolution[2]]
    every: list[TagTuple] = []
    if picture.nodata is not None:
        every.append((_NODATA, _ASCII, 0, str(int(picture.nodata)).encode(), False))
    extra = [*every, *_blocks(embedded)]
    if picture.orientation is not None:
        extra.append((_ORIENTATION, _SHORT, 1, picture.orientation, True))
    own = _OWN | ({_DESCRIPTION} if picture.description else set()) | ({_SOFTWARE} if picture.software else set())
    extra += map(_tuple, _writable(embedded.tags, own, bigtiff, "tags", missing))
    own |= {tag.code for tag in embedded.tags}
    extra += map(_tuple, _writable(exif.ifd0, own, bigtiff, "exif", missing))
    extra += map(_tuple, geo_tags(embedded.place, missing))
    pointer = _LONG8 if bigtiff else _LONG  # Pillow does not know IFD8
    # By name: tifffile drops these two if they are given as numbers.
    extra += [("ExifTag", pointer, 1, 0, True)] if exif.exif or exif.interop else []
    extra += [("GPSTag", pointer, 1, 0, True)] if exif.gps else []
    options["extratags"] = extra
    return Tags(options, every, exif, missing)


def append_directories(stream: BinaryIO, exif: Exif, bigtiff: bool) -> None:
    """Append the directories of ``exif``, except the first, to a little-endian TIFF, and set their pointers."""
    if exif.interop or exif.exif:
        pointers = [(INTEROP_IFD, _append(stream, exif.interop, (), bigtiff))] if exif.interop else []
        _point(stream, EXIF_IFD, _append(stream, exif.exif, pointers, bigtiff), bigtiff)
    if exif.gps:
        _point(stream, GPS_IFD, _append(stream, exif.gps, (), bigtiff), bigtiff)


def _append(stream: BinaryIO, tags: tuple[TiffTag, ...], pointers: Iterable[tuple[int, int]], bigtiff: bool) -> int:
    end = stream.seek(0, os.SEEK_END)
    offset = -(-end // 8) * 8
    stream.write(b"\0" * (offset - end) + directory(tags, offset, pointers, bigtiff))
    return offset


def _point(stream: BinaryIO, code: int, offset: int, bigtiff: bool) -> None:
    """Set the existing pointer ``code`` of the first directory."""
    at, number, entry, room = (8, "<Q", "<HHQ", 8) if bigtiff else (4, "<I", "<HHI", 4)
    count = "<Q" if bigtiff else "<H"
    stream.seek(at)
    stream.seek(struct.unpack(number, stream.read(room))[0])
    for _ in range(struct.unpack(count, stream.read(struct.calcsize(count)))[0]):
        found = struct.unpack(entry, stream.read(struct.calcsize(entry)))[0]
        if found == code:
            stream.write(struct.pack(number, offset))
            return
        stream.seek(room, os.SEEK_CUR)
    raise AssertionError(f"no pointer {code} in the first directory")  # a change in tifffile; no file is published


def _blocks(embedded: EmbeddedMetadata) -> list[TagTuple]:
    blocks = ((_XMP, _BYTE, embedded.xmp), (_IPTC, _UNDEFINED, embedded.iptc), (_PHOTOSHOP, _BYTE, embedded.photoshop))
    return [(code, kind, len(block), block, True) for code, kind, block in blocks if block]


def _parsed(block: bytes, missing: dict[str, str]) -> Exif:
    try:
        exif = parse_exif(block) if block else Exif()
        directory(exif.exif, 0)
    except ValueError as error:
        missing["exif"] = str(error)
        return Exif()
    return exif


def _writable(
    tags: Iterable[TiffTag], own: Iterable[int], bigtiff: bool, name: str, missing: dict[str, str]
) -> Iterator[TiffTag]:
    """The ``tags`` that the first directory can hold."""
    seen = {*own, *STRUCTURE}
    for tag in tags:
        if tag.code in seen:
            continue
        seen.add(tag.code)
        if tag.type in (_IFD, _IFD8):
            missing[name] = f"tag {tag.code} is an offset into another file"
        elif len(tag.value) != value_bytes(tag.type) * tag.count:
            missing[name] = f"tag {tag.code} has {len(tag.value)} bytes for {tag.count} values of type {tag.type}"
        elif tag.type in (_LONG8, _SLONG8) and not bigtiff:
            missing[name] = f"tag {tag.code} has 64-bit numbers, which only a BigTIFF has"
        else:
            yield tag


def _tuple(tag: TiffTag) -> TagTuple:
    # Exif 3.0 has a type for UTF-8 that TIFF 6.0 lacks; all programs read UTF-8 in an ASCII field.
    return tag.code, _ASCII if tag.type == _UTF8 else tag.type, tag.count, _value(tag), True


def _value(tag: TiffTag) -> bytes | tuple[int, ...]:
    """The value for tifffile. Rationals are numerators and denominators in turn: as bytes, it counts them wrongly."""
    if tag.type in _RATIONALS:
        return struct.unpack(f"<{2 * tag.count}{_RATIONALS[tag.type]}", tag.value)
    return tag.value


def _text(text: str) -> bytes:
    # A TIFF string ends at its first NUL; unpaired surrogates come from file names that are not UTF-8.
    return text.replace("\0", " ").encode("utf-8", "backslashreplace")
