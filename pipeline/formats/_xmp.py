"""XMP packets that are larger than their place, split into a main part and the rest.

Statements on the picture's making come first: any program must find that an algorithm added the colour, even if it does
not read the rest.

References
----------
XMP Specification Part 3 (2020), 1.1.3.1 (extended XMP in JPEG); ISO 16684-1:2019 (XMP).
"""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from pipeline.metadata.provenance import SOURCE_TYPE, xmp_packet
from pipeline.metadata.xmp import merged, parsed

_RDF, _DC, _XMP = (
    "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}",
    "{http://purl.org/dc/elements/1.1/}",
    "{http://ns.adobe.com/xap/1.0/}",
)
_HAS_EXTENDED = "{http://ns.adobe.com/xmp/note/}HasExtendedXMP"
_FIRST = (
    "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType",
    f"{_XMP}CreatorTool",
    f"{_DC}description",
    f"{_DC}source",
)
_BEGIN, _END = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n', b'\n<?xpacket end="r"?>'
_DIGEST = "0" * 32
_TEXT_CHARACTERS = 2000

ET.register_namespace("xmpNote", _HAS_EXTENDED.partition("}")[0][1:])


@dataclass(frozen=True)
class Split:
    """A packet split into two.

    Attributes
    ----------
    main : the required properties, and all others that fit
    rest : the other properties; empty if there are none
    digest : digest of ``rest``, which ``main`` names
    moved : names of the properties in ``rest``
    """

    main: bytes
    rest: bytes = b""
    digest: str = ""
    moved: tuple[str, ...] = ()


def split(packet: bytes, limit_bytes: int, *, extended: bool = True) -> Split:
    """Split ``packet`` into a main part of at most ``limit_bytes`` and the rest.

    The main part takes the required properties first, then smaller ones before larger ones; none is cut. Without
    ``extended``, it does not name the rest, which the caller leaves out.

    Raises
    ------
    ValueError : the packet is damaged or refused; one line
    """
    if len(packet) <= limit_bytes:
        return Split(packet)
    description = parsed(merged(b"", packet)).find(f"{_RDF}RDF/{_RDF}Description")
    every = [] if description is None else [each for each in description if each.tag != _HAS_EXTENDED]
    room, kept = limit_bytes - len(_packet([], _DIGEST)), list[ET.Element]()
    sizes = {each.tag: len(ET.tostring(each)) for each in every}
    while room > 0:
        chosen = _chosen(sizes, room)
        kept = [each for each in every if each.tag in chosen]
        over_bytes = len(_packet(kept, _DIGEST)) - limit_bytes
        if over_bytes <= 0:
            break
        room, kept = room - over_bytes, []  # among other properties, a prefix may be longer than alone
    there = {each.tag for each in kept}
    moved = [each for each in every if each.tag not in there]
    rest = ET.tostring(_root(moved), encoding="utf-8") if moved else b""
    digest = hashlib.md5(rest, usedforsecurity=False).hexdigest().upper() if rest and extended else ""
    return Split(_packet(kept, digest), rest, digest, tuple(each.tag.rpartition("}")[2] for each in moved))


def _chosen(sizes: dict[str, int], room_bytes: int) -> set[str]:
    """The properties that fit, given the size of each in bytes."""
    ranks, chosen = {name: rank for rank, name in enumerate(_FIRST)}, set[str]()
    for name in sorted(sizes, key=lambda name: (ranks.get(name, len(_FIRST)), sizes[name])):
        if sizes[name] <= room_bytes:
            chosen.add(name)
            room_bytes -= sizes[name]
    return chosen


def disclosure(packet: bytes, software: str, description: str) -> bytes:
    """A minimal packet instead of one that cannot be split: an algorithm made the colours, if ``packet`` said so."""
    if SOURCE_TYPE.encode() not in packet:
        return b""
    return xmp_packet(software[:_TEXT_CHARACTERS], description[-_TEXT_CHARACTERS:], "")


def _packet(properties: list[ET.Element], digest: str) -> bytes:
    inner: bytes = ET.tostring(_root(properties, digest), encoding="utf-8")
    return _BEGIN + inner + _END


def _root(properties: list[ET.Element], digest: str = "") -> ET.Element:
    root = ET.Element("{adobe:ns:meta/}xmpmeta")
    about = {f"{_RDF}about": ""} | ({_HAS_EXTENDED: digest} if digest else {})
    ET.SubElement(ET.SubElement(root, f"{_RDF}RDF"), f"{_RDF}Description", about).extend(properties)
    return root
