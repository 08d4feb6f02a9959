"""The metadata of a result: what it takes over from its scan, merged with its own.

A TIFF stores in tags what a JPEG stores in the first directory of its EXIF block. A result has both, so that each
format writes what it can hold.
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
_TAG_LIMIT_BYTES = 8192  # for a tag in an EXIF block, which has 64 kB in a JPEG


def for_result(scan: EmbeddedMetadata, xmp: bytes, icc: bytes) -> EmbeddedMetadata:
    """The result's metadata: all of the scan's except what holds only for the scan's own samples and file.

    Left out are its profile, structural tags, thumbnails, and software and description, because a result has its own
    (:func:`software_of`, :func:`description_of`); and a maker note that cannot be moved (:func:`has_bound_note`). A
    damaged block is kept unchanged: writers then report that they do not carry it.

    Parameters
    ----------
    xmp, icc : packet and profile of the result
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
    """An EXIF block of a TIFF's descriptive tags and the other tags of ``exif``. Raises ValueError if damaged."""
    found = parse_exif(exif) if exif else Exif()
    small = [tag for tag in tags if len(tag.value) <= _TAG_LIMIT_BYTES]
    exposure = tuple(_as_srgb(tag) for tag in found.exif if tag.code not in _ENCODING and not _is_bound_note(tag))
    return exif_block(described(small, found.ifd0), exposure, found.gps, found.interop)


def exif_as_tags(exif: bytes, tags: tuple[TiffTag, ...] = ()) -> tuple[TiffTag, ...]:
    """A TIFF's descriptive tags: ``tags``, and the other ones in the first directory of ``exif``."""
    return described(tags, parsed_exif(exif).ifd0)


def has_bound_note(scan: EmbeddedMetadata) -> bool:
    """True if the scan has a maker note whose offsets become wrong in another block."""
    return any(map(_is_bound_note, parsed_exif(scan.exif).exif))


def description_of(scan: EmbeddedMetadata) -> str:
    """The scan's own description, from its tags or its EXIF block; empty if there is none."""
    return _text_of(scan, DESCRIPTION)


def software_of(scan: EmbeddedMetadata) -> str:
    """The software that made the scan, by its metadata; empty if not given."""
    return _text_of(scan, SOFTWARE)


def described(tags: Iterable[TiffTag], others: Iterable[TiffTag]) -> tuple[TiffTag, ...]:
    """Descriptive tags of both, sorted; ``tags`` take precedence."""
    found = {tag.code: tag for tag in (*others, *tags) if tag.code not in OF_PICTURE}
    return tuple(found[code] for code in sorted(found))


def parsed_exif(exif: bytes) -> Exif:
    """The parsed EXIF block; empty if it is damaged."""
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
    return decoded(found[0].value.rstrip(b"\0 ")).strip() if found else ""


def decoded(text: bytes) -> str:
    """Decode UTF-8, or else Windows-1252 or Latin-1, which many programs wrote into ASCII fields; nothing is lost."""
    for encoding in ("utf-8", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            return text.decode(encoding)
    return text.decode("latin-1")


def _kept_resources(block: bytes) -> bytes:
    return resource_block(without_scan_parts(parse_resources(block)))


def _kept_geo(tags: Iterable[TiffTag]) -> Iterator[TiffTag]:
    """The tags, with only those items of GDAL's metadata that describe the whole picture: not a band, its samples, or
    how the file is written, because the result differs in these."""
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
