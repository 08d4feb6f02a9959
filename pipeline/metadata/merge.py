"""What a result takes over of what its scan says beside its pixels, put together with what is said of the result.

A TIFF says in tags what a JPEG says in the first directory of its EXIF block. A result has it in both ways, so that
each format writes what it has a place for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
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
)
from pipeline.metadata.iptc import parse_resources, resource_block, without_scan_parts
from pipeline.metadata.model import EmbeddedMetadata, TiffTag
from pipeline.metadata.xmp import parsed

_GDAL_METADATA = 42112
_COLOR_SPACE, _ENCODING = 40961, (37121, 37122)
_TAG_LIMIT_BYTES = 8192  # of one that goes into an EXIF block, for which a JPEG has 64 kB


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
    return exif_block(described(small, found.ifd0), exposure, found.gps, found.interop)


def exif_as_tags(exif: bytes, tags: tuple[TiffTag, ...] = ()) -> tuple[TiffTag, ...]:
    """A TIFF's descriptive tags: ``tags``, and what the first directory of ``exif`` says beside them."""
    return described(tags, parsed_exif(exif).ifd0)


def has_bound_note(scan: EmbeddedMetadata) -> bool:
    """Whether the scan has a maker note whose offsets point elsewhere once it is in another block."""
    return any(map(_is_bound_note, parsed_exif(scan.exif).exif))


def description_of(scan: EmbeddedMetadata) -> str:
    """The scan's own description, of its tags or its EXIF block; empty without one."""
    return _text_of(scan, DESCRIPTION)


def software_of(scan: EmbeddedMetadata) -> str:
    """What the scan says it was made with; empty where it does not."""
    return _text_of(scan, SOFTWARE)


def described(tags: Iterable[TiffTag], others: Iterable[TiffTag]) -> tuple[TiffTag, ...]:
    """Descriptive tags of both, sorted; the first ones prevail."""
    found = {tag.code: tag for tag in (*others, *tags) if tag.code not in OF_PICTURE}
    return tuple(found[code] for code in sorted(found))


def parsed_exif(exif: bytes) -> Exif:
    """An EXIF block, empty where it is damaged."""
    try:
        return parse_exif(exif) if exif else Exif()
    except ValueError:
        return Exif()


def _is_bound_note(tag: TiffTag) -> bool:
    return tag.code == MAKER_NOTE and not is_movable_note(tag.value)


def _as_srgb(tag: TiffTag) -> TiffTag:
    return TiffTag(_COLOR_SPACE, 3, 1, b"\1\0") if tag.code == _COLOR_SPACE else tag


def _text_of(scan: EmbeddedMetadata, code: int) -> str:
    found = [tag for tag in (*scan.tags, *parsed_exif(scan.exif).ifd0) if tag.code == code and tag.type in (2, 129)]
    return _decoded(found[0].value.rstrip(b"\0 ")).strip() if found else ""


def _decoded(text: bytes) -> str:
    """UTF-8, or else what programs of Western Windows and Unix wrote where only ASCII was allowed; nothing is lost."""
    for encoding in ("utf-8", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            return text.decode(encoding)
    return text.decode("latin-1")


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


def _or_itself(change: Callable[[bytes], bytes], block: bytes) -> bytes:
    try:
        return change(block)
    except ValueError:
        return block
