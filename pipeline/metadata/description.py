"""What a scan's own metadata says of the picture, for people: title, description, makers, dates, rights.

Texts are language maps as IIIF has them: BCP 47 tags, or "none" where no language is told, each with its texts. XMP is
asked first, for it alone knows languages; then IPTC, then the tags of a TIFF or an EXIF block.

References
----------
IPTC Photo Metadata Standard 2023.2 (properties, and their datasets in IIM 4.2); Exif 3.0; RFC 5646 (BCP 47); IIIF
Presentation API 3.0, 4.1 (language maps).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any

from pipeline.metadata.iptc import parse_iim
from pipeline.metadata.merge import decoded, parsed_exif
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.metadata.xmp import clean, properties

Texts = Mapping[str, tuple[str, ...]]

NO_LANGUAGE = "none"
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")
_LONGEST_TEXT, _MOST_TEXTS = 5000, 50
_DC, _XMP_RIGHTS = "{http://purl.org/dc/elements/1.1/}", "{http://ns.adobe.com/xap/1.0/rights/}"
_PS = "{http://ns.adobe.com/photoshop/1.0/}"
# Properties of XMP, datasets of IPTC's record 2, and tags, each the likeliest first.
_PLACES: Mapping[str, tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]] = {
    "title": ((f"{_DC}title", f"{_PS}Headline"), (5, 105), (269,)),
    "summary": ((f"{_DC}description",), (120,), (270,)),
    "creator": ((f"{_DC}creator",), (80,), (315,)),
    "date": ((f"{_PS}DateCreated", f"{_DC}date"), (55,), ()),
    "rights": ((f"{_DC}rights", f"{_XMP_RIGHTS}UsageTerms"), (116,), (33432,)),
    "subject": ((f"{_DC}subject",), (25,), ()),
    "place": ((f"{_PS}City", f"{_PS}Country"), (90, 101), ()),
    "identifier": ((f"{_DC}identifier", f"{_PS}TransmissionReference"), (103,), ()),
}
_RECORD = 2
_ASCII, _UTF8 = 2, 129  # types of tags


@dataclass(frozen=True)
class Description:
    """What is known of a picture; empty mappings where nothing is said."""

    title: Texts = field(default_factory=dict)
    summary: Texts = field(default_factory=dict)
    creator: Texts = field(default_factory=dict)
    date: Texts = field(default_factory=dict)
    rights: Texts = field(default_factory=dict)
    subject: Texts = field(default_factory=dict)
    place: Texts = field(default_factory=dict)
    identifier: Texts = field(default_factory=dict)


def description_of_scan(scan: EmbeddedMetadata) -> Description:
    """What the embedded metadata of a scan says of its picture; damaged blocks say nothing."""
    packet: Mapping[str, str] = {}
    with contextlib.suppress(ValueError):
        packet = properties(scan.xmp) if scan.xmp else {}
    datasets = _iptc(scan.iptc)
    tags = {tag.code: tag for tag in (*parsed_exif(scan.exif).ifd0, *scan.tags) if tag.type in (_ASCII, _UTF8)}
    found = {}
    for each in fields(Description):
        names, numbers, codes = _PLACES[each.name]
        in_packet = (_language_map(json.loads(packet[name])) for name in names if name in packet)
        in_datasets = (_plain(datasets.get(number, ())) for number in numbers)
        in_tags = (_plain([decoded(tags[code].value)]) for code in codes if code in tags)
        found[each.name] = next(filter(None, chain(in_packet, in_datasets, in_tags)), {})
    return Description(**found)


def _plain(texts: Iterable[str]) -> Texts:
    kept = tuple(dict.fromkeys(filter(None, map(_tidy, texts))))[:_MOST_TEXTS]
    return {NO_LANGUAGE: kept} if kept else {}


def _tidy(text: str) -> str:
    lines = (" ".join(line.split()) for line in clean(text.replace("\0", "")).splitlines())
    return "\n".join(filter(None, lines))[:_LONGEST_TEXT]


def _language_map(value: Any) -> Texts:
    """The texts of a property (:func:`pipeline.metadata.xmp.properties`) by language.

    "x-default" repeats one of the languages, unless it is the only one.
    """
    found: dict[str, list[str]] = {}
    for language, text in _by_language(value):
        if tidy := _tidy(text):
            found.setdefault(language, []).append(tidy)
    told = {text for language, texts in found.items() if language != NO_LANGUAGE for text in texts}
    kept = {name: tuple(t for t in texts if name != NO_LANGUAGE or t not in told) for name, texts in found.items()}
    return {name: texts[:_MOST_TEXTS] for name, texts in kept.items() if texts}


def _by_language(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield NO_LANGUAGE, value
    elif isinstance(value, list):  # its first item names the kind of the array
        for each in value[1:]:
            yield from _by_language(each)
    elif isinstance(value, dict):
        for language, text in value.items():
            if isinstance(text, str):
                yield language if _LANGUAGE.fullmatch(language) and language != "x-default" else NO_LANGUAGE, text


def _iptc(block: bytes) -> dict[int, list[str]]:
    """Texts of each dataset of record 2."""
    found: dict[int, list[str]] = {}
    with contextlib.suppress(ValueError):
        for record, number, value in parse_iim(block) if block else ():
            if record == _RECORD:
                found.setdefault(number, []).append(decoded(value))
    return found
