"""Compare the metadata of a written file with what should have been written.

Values are compared, not their order or position: a TIFF's tags and its EXIF block are taken together.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from math import isclose
from typing import Any

from pipeline.metadata.exif import parse_exif, tiff_text
from pipeline.metadata.iptc import parse_iim, parse_resources
from pipeline.metadata.merge import described, description_of, parsed_exif
from pipeline.metadata.model import EmbeddedMetadata, Georeference, TiffTag
from pipeline.metadata.xmp import properties
from pipeline.support.gdal import CRS

_FORMATS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_RELATIVE = 1e-9
_SHOWN_CHARACTERS = 60


def differences(wanted: EmbeddedMetadata, found: EmbeddedMetadata) -> dict[str, str]:
    """The parts of ``wanted`` that ``found`` lacks, with the reason, by the names of ``WriteReport.not_carried``.

    Values are compared, not their order or position; additional values in ``found`` are not a difference.

    Parameters
    ----------
    wanted : the metadata that should have been written
    found : the metadata that a reader found in the written file
    """
    missing = {
        "icc": "another profile" if wanted.icc and wanted.icc != found.icc else "",
        "exif": _missing_exif(wanted, found),
        "iptc": _missing_parts(wanted.iptc, found.iptc, _datasets),
        "xmp": _missing_parts(wanted.xmp, found.xmp, properties),
        "photoshop": _missing_parts(wanted.photoshop, found.photoshop, _resources),
        "tags": _missing(_first_directory(wanted.tags, ()), _first_directory(found.tags, parsed_exif(found.exif).ifd0)),
        **(_missing_place(wanted.place, found.place or Georeference()) if wanted.place else {}),
    }
    return {name: text for name, text in missing.items() if text}


def missing_description(wanted: str, found: EmbeddedMetadata) -> str:
    """A problem if the description in ``found`` does not contain the text ``wanted``; else empty."""
    text = tiff_text(wanted).decode().strip()
    return "" if text in description_of(found) else f"not there: {text[:_SHOWN_CHARACTERS]!r}"


def _missing_exif(wanted: EmbeddedMetadata, found: EmbeddedMetadata) -> str:
    if not wanted.exif:
        return ""
    try:
        told = parse_exif(wanted.exif)
    except ValueError as error:
        return "" if wanted.exif == found.exif else str(error)
    there = parsed_exif(found.exif)
    pairs = (
        (_first_directory((), told.ifd0), _first_directory(found.tags, there.ifd0)),
        (_values(told.exif), _values(there.exif)),
        (_values(told.gps), _values(there.gps)),
        (_values(told.interop), _values(there.interop)),
    )
    return "; ".join(text for text in (_missing(*pair) for pair in pairs) if text)


def _missing_parts(wanted: bytes, found: bytes, parts: Callable[[bytes], dict[Any, Any]]) -> str:
    if not wanted or wanted == found:
        return ""
    if not found:
        return "not there"
    try:
        return _missing(parts(wanted), parts(found))
    except ValueError as error:
        return str(error)


def _missing_place(wanted: Georeference, found: Georeference) -> dict[str, str]:
    if wanted.tags and _values(wanted.tags) == _values(found.tags):
        return {}
    place = [
        "" if _same_crs(wanted.crs, found.crs) else "another coordinate system",
        "" if not wanted.transform or _close(wanted.transform, found.transform) else "another transform",
    ]
    points = len(wanted.gcps) == len(found.gcps) and all(map(_close, wanted.gcps, found.gcps))
    same_points = points and (not wanted.gcps or _same_crs(wanted.gcps_crs, found.gcps_crs))
    rpcs = [name for name, text in wanted.rpcs.items() if not _same_numbers(text, found.rpcs.get(name, ""))]
    return {
        "place": ", ".join(filter(None, place)),
        "gcps": "other control points" if wanted.gcps and not same_points else "",
        "rpcs": ", ".join(rpcs),
    }


def _missing(wanted: dict[Any, Any], found: dict[Any, Any]) -> str:
    names = [str(name) for name, value in wanted.items() if name not in found or found[name] != value]
    return ", ".join(names)


def _same_crs(wanted: str, found: str) -> bool:
    if not wanted or wanted == found:
        return True
    try:
        return bool(found) and bool(CRS.from_wkt(wanted) == CRS.from_wkt(found))
    except Exception:  # rasterio raises unrelated types; unreadable values count as different
        return False


def _close(wanted: Iterable[float], found: Iterable[float]) -> bool:
    one, other = tuple(wanted), tuple(found)
    return len(one) == len(other) and all(
        isclose(a, b, rel_tol=_RELATIVE, abs_tol=1e-12) for a, b in zip(one, other, strict=True)
    )


def _same_numbers(wanted: str, found: str) -> bool:
    try:
        return _close(map(float, wanted.split()), map(float, found.split()))
    except ValueError:
        return wanted == found


def _values(tags: Iterable[TiffTag]) -> dict[int, Any]:
    return {tag.code: _value(tag) for tag in tags}


def _value(tag: TiffTag) -> Any:
    """The numbers of a tag, or its bytes, independent of their stored type."""
    if tag.type in (2, 129):
        return tag.value.rstrip(b"\0")
    size = struct.calcsize(_FORMATS.get(tag.type, "B"))
    if tag.type in (5, 10):
        return tuple(struct.iter_unpack("<II" if tag.type == 5 else "<ii", tag.value[: len(tag.value) // 8 * 8]))
    if tag.type in (1, 6, 7):
        return tuple(tag.value)
    numbers = len(tag.value) // size
    return struct.unpack_from(f"<{numbers}{_FORMATS.get(tag.type, 'B')}", tag.value)


def _first_directory(tags: Iterable[TiffTag], ifd0: Iterable[TiffTag]) -> dict[int, Any]:
    return _values(described(tags, ifd0))


def _resources(block: bytes) -> dict[tuple[int, bytes], list[bytes]]:
    found: dict[tuple[int, bytes], list[bytes]] = {}
    for each in parse_resources(block):
        found.setdefault((each.number, each.name), []).append(each.data)
    return found


def _datasets(block: bytes) -> dict[tuple[int, int], list[bytes]]:
    found: dict[tuple[int, int], list[bytes]] = {}
    for record, number, value in parse_iim(block):
        found.setdefault((record, number), []).append(value)
    return found
