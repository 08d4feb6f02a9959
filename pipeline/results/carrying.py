"""What a result takes over of what its scan says beside its pixels, and whether a written file says all of it.

A TIFF says in tags what a JPEG says in the first directory of its EXIF block. A result carries it in both ways, so that
each format writes what it has a place for, and both are taken together where two files are compared.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from math import isclose
from typing import Any
from xml.etree import ElementTree

from pipeline.metadata.exif import (
    DESCRIPTION,
    MAKER_NOTE,
    OF_PICTURE,
    SOFTWARE,
    Exif,
    exif_block,
    is_movable_note,
    parse_exif,
    tiff_text,
)
from pipeline.metadata.iptc import parse_iim, parse_resources, resource_block, without_scan_parts
from pipeline.metadata.model import EmbeddedMetadata, Georeference, TiffTag
from pipeline.metadata.xmp import parsed, properties
from pipeline.support.gdal import CRS

_GDAL_METADATA = 42112
_COLOR_SPACE, _ENCODING = 40961, (37121, 37122)
_TAG_LIMIT_BYTES = 8192  # of one that goes into an EXIF block, for which a JPEG has 64 kB
_FORMATS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_RELATIVE = 1e-9
_SHOWN_CHARACTERS = 60


def for_result(scan: EmbeddedMetadata, xmp: bytes, icc: bytes) -> EmbeddedMetadata:
    """What a result carries of what its scan said: all but what was true of the scan's own samples and file.

    Left out are its profile, its structural tags, its thumbnails, and its software and description, for a result has
    its own (:func:`software_of`, :func:`description_of`); and a maker note that only holds where it was
    (:func:`has_bound_note`). A block that is damaged stays as it is: writers then say that
    they do not carry it.

    Parameters
    ----------
    xmp, icc : of the result
    """
    return replace(
        scan,
        icc=icc,
        xmp=xmp,
        exif=_or_itself(lambda block: tags_as_exif(scan.tags, block), scan.exif),
        tags=exif_as_tags(scan.exif, scan.tags),
        photoshop=_or_itself(_kept_resources, scan.photoshop),
        place=scan.place and replace(scan.place, tags=tuple(_kept_geo(scan.place.tags))),
    )


def tags_as_exif(tags: tuple[TiffTag, ...], exif: bytes = b"") -> bytes:
    """An EXIF block of a TIFF's descriptive tags and what ``exif`` says beside them. Raises ValueError if damaged."""
    found = parse_exif(exif) if exif else Exif()
    small = [tag for tag in tags if len(tag.value) <= _TAG_LIMIT_BYTES]
    exposure = tuple(_as_srgb(tag) for tag in found.exif if tag.code not in _ENCODING and not _is_bound_note(tag))
    return exif_block(_described(small, found.ifd0), exposure, found.gps, found.interop)


def exif_as_tags(exif: bytes, tags: tuple[TiffTag, ...] = ()) -> tuple[TiffTag, ...]:
    """A TIFF's descriptive tags: ``tags``, and what the first directory of ``exif`` says beside them."""
    return _described(tags, _parsed(exif).ifd0)


def has_bound_note(scan: EmbeddedMetadata) -> bool:
    """Whether the scan has a maker note whose offsets point elsewhere once it is in another block."""
    return any(map(_is_bound_note, _parsed(scan.exif).exif))


def description_of(scan: EmbeddedMetadata) -> str:
    """The scan's own description, of its tags or its EXIF block; empty without one."""
    return _text_of(scan, DESCRIPTION)


def software_of(scan: EmbeddedMetadata) -> str:
    """What the scan says it was made with; empty where it does not."""
    return _text_of(scan, SOFTWARE)


def differences(wanted: EmbeddedMetadata, found: EmbeddedMetadata) -> dict[str, str]:
    """What of ``wanted`` is not in ``found``, with what differs, by the names of ``WriteReport.not_carried``.

    Values are compared, not their order or place; what ``found`` has beyond ``wanted`` is no difference.

    Parameters
    ----------
    wanted : what was to be written
    found : what a reader found in the written file
    """
    missing = {
        "icc": "another profile" if wanted.icc and wanted.icc != found.icc else "",
        "exif": _missing_exif(wanted, found),
        "iptc": _missing_parts(wanted.iptc, found.iptc, _datasets),
        "xmp": _missing_parts(wanted.xmp, found.xmp, properties),
        "photoshop": _missing_parts(wanted.photoshop, found.photoshop, _resources),
        "tags": _missing(_first_directory(wanted.tags, ()), _first_directory(found.tags, _parsed(found.exif).ifd0)),
        **(_missing_place(wanted.place, found.place or Georeference()) if wanted.place else {}),
    }
    return {name: text for name, text in missing.items() if text}


def missing_description(wanted: str, found: EmbeddedMetadata) -> str:
    """What is wrong where ``found`` does not have the text ``wanted`` within its description; empty where it has."""
    text = tiff_text(wanted).decode().strip()
    return "" if text in description_of(found) else f"not there: {text[:_SHOWN_CHARACTERS]!r}"


def _missing_exif(wanted: EmbeddedMetadata, found: EmbeddedMetadata) -> str:
    if not wanted.exif:
        return ""
    try:
        told = parse_exif(wanted.exif)
    except ValueError as error:
        return "" if wanted.exif == found.exif else str(error)
    there = _parsed(found.exif)
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
    except Exception:  # rasterio raises from several trees; what cannot be read is not the same
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
    """The numbers of a tag, or its bytes, whatever the type they are stored in."""
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
    return _values(_described(tags, ifd0))


def _described(tags: Iterable[TiffTag], others: Iterable[TiffTag]) -> tuple[TiffTag, ...]:
    """Descriptive tags of both, sorted; the first ones prevail."""
    found = {tag.code: tag for tag in (*others, *tags) if tag.code not in OF_PICTURE}
    return tuple(found[code] for code in sorted(found))


def _is_bound_note(tag: TiffTag) -> bool:
    return tag.code == MAKER_NOTE and not is_movable_note(tag.value)


def _as_srgb(tag: TiffTag) -> TiffTag:
    return TiffTag(_COLOR_SPACE, 3, 1, b"\1\0") if tag.code == _COLOR_SPACE else tag


def _text_of(scan: EmbeddedMetadata, code: int) -> str:
    found = [tag for tag in (*scan.tags, *_parsed(scan.exif).ifd0) if tag.code == code and tag.type in (2, 129)]
    return _decoded(found[0].value.rstrip(b"\0 ")).strip() if found else ""


def _decoded(text: bytes) -> str:
    """UTF-8, or else what programs of Western Windows and Unix wrote where only ASCII was allowed; nothing is lost."""
    for encoding in ("utf-8", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            return text.decode(encoding)
    return text.decode("latin-1")


def _parsed(exif: bytes) -> Exif:
    try:
        return parse_exif(exif) if exif else Exif()
    except ValueError:
        return Exif()


def _kept_resources(block: bytes) -> bytes:
    return resource_block(without_scan_parts(parse_resources(block)))


def _kept_geo(tags: Iterable[TiffTag]) -> Iterator[TiffTag]:
    """Of GDAL's own metadata, what is said of the whole picture: not of a band, of its samples, or of how the file is
    written, which a result is not."""
    for tag in tags:
        if tag.code != _GDAL_METADATA:
            yield tag
            continue
        try:
            root = parsed(tag.value)
        except ValueError:
            continue
        items = [each for each in root if _is_of_whole_picture(each)]
        if items:
            kept = ElementTree.Element(root.tag)
            kept.extend(items)
            value = ElementTree.tostring(kept) + b"\0"
            yield TiffTag(tag.code, 2, len(value), value)


def _is_of_whole_picture(item: ElementTree.Element) -> bool:
    structure = item.get("domain", "") == "IMAGE_STRUCTURE"
    return not structure and "sample" not in item.attrib and "STATISTICS" not in item.get("name", "")


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


def _or_itself(change: Callable[[bytes], bytes], block: bytes) -> bytes:
    try:
        return change(block)
    except ValueError:
        return block
