"""XMP packets: reading and merging them.

A packet comes from an untrusted file. One with a document type is refused, because it can declare entities that expand
without limit or refer to other files; size, depth and number of elements are limited.

References
----------
ISO 16684-1:2019 (XMP), 6 and 7; XMP Specification Part 2 (xmpMM:History, ResourceEvent).
"""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ET
from typing import Any
from xml.parsers import expat

from pipeline.metadata.model import BLOCK_LIMIT_BYTES

_DEPTH_LIMIT, _ELEMENT_LIMIT = 64, 100_000
_RDF, _XML = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}", "{http://www.w3.org/XML/1998/namespace}"
_DC, _XMP, _MM = (
    "{http://purl.org/dc/elements/1.1/}",
    "{http://ns.adobe.com/xap/1.0/}",
    "{http://ns.adobe.com/xap/1.0/mm/}",
)
_EVENT = "{http://ns.adobe.com/xap/1.0/sType/ResourceEvent#}"
_TIFF, _EXIF, _PS = (f"{{http://ns.adobe.com/{name}/1.0/}}" for name in ("tiff", "exif", "photoshop"))
DIGITAL_SOURCE_TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
_HAS_EXTENDED = "{http://ns.adobe.com/xmp/note/}HasExtendedXMP"
CREATOR_TOOL, _INSTANCE, _HISTORY = f"{_XMP}CreatorTool", f"{_MM}InstanceID", f"{_MM}History"
_PREFIXES = {
    "x": "adobe:ns:meta/",
    "dc": _DC,
    "xmp": _XMP,
    "xmpMM": _MM,
    "stEvt": _EVENT,
    "stRef": "http://ns.adobe.com/xap/1.0/sType/ResourceRef#",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "tiff": _TIFF,
    "exif": _EXIF,
    "exifEX": "http://cipa.jp/exif/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "photoshop": _PS,
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
}
for _prefix, _namespace in _PREFIXES.items():  # process-wide; other namespaces get ns0, ns1, ...
    ET.register_namespace(_prefix, _namespace.strip("{}"))
# Properties on how samples were stored in the scan's file, and thumbnails without colours.
# fmt: off
_STRUCTURE = frozenset((
    *(_TIFF + name for name in (
        "ImageWidth", "ImageLength", "BitsPerSample", "Compression", "PhotometricInterpretation", "Orientation",
        "SamplesPerPixel", "PlanarConfiguration", "YCbCrSubSampling", "YCbCrPositioning", "YCbCrCoefficients",
        "ReferenceBlackWhite", "XResolution", "YResolution", "ResolutionUnit", "TransferFunction", "WhitePoint",
        "PrimaryChromaticities", "NativeDigest", "Software", "ImageDescription",
    )),
    *(_EXIF + name for name in ("ColorSpace", "ComponentsConfiguration", "CompressedBitsPerPixel", "NativeDigest")),
    *(_PS + name for name in ("ColorMode", "ICCProfile")),
    _XMP + "Thumbnails",
))
# fmt: on
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'


def merged(scan: bytes, ours: bytes, tool: str = "") -> bytes:
    """One packet with every property of both; ``ours`` takes precedence.

    Descriptions and sources are joined, the scan's first. Statements on the scan's own making (tool, instance, digital
    source type) become an entry of the history, before one for ours. Properties on how its samples were stored are left
    out.

    Parameters
    ----------
    scan : the packet of a scan; may be empty
    ours : the packet of :func:`pipeline.metadata.provenance.xmp_packet`
    tool : the software that made the scan, if its packet does not name it

    Raises
    ------
    ValueError : the scan's packet is damaged, too large, or has a document type; one line
    """
    theirs, made = _elements(scan) if scan else {}, _elements(ours)
    kept = {name: each for name, each in theirs.items() if name not in _STRUCTURE and name not in made}
    kept.pop(_INSTANCE, None)
    if f"{_TIFF}ImageDescription" in theirs:  # an older name of the description
        theirs.setdefault(f"{_DC}description", theirs[f"{_TIFF}ImageDescription"])
    for name, joint in ((f"{_DC}description", "\n\n"), (f"{_DC}source", "; ")):
        if name in theirs and name in made:
            made[name] = _joined(theirs[name], made[name], joint)
    if scan or tool:
        kept[_HISTORY] = _history(theirs, made, tool)
    description = ET.Element(f"{_RDF}Description", {f"{_RDF}about": ""})
    description.extend([*kept.values(), *made.values()])
    rdf = ET.Element(f"{_RDF}RDF")
    rdf.append(description)
    root = ET.Element("{adobe:ns:meta/}xmpmeta")
    root.append(rdf)
    return (_BEGIN + ET.tostring(root, encoding="unicode") + '\n<?xpacket end="r"?>').encode()


def with_extended(packet: bytes, extended: bytes) -> bytes:
    """A packet completed by the extended XMP of a JPEG (XMP Specification Part 3, 1.1.3.1).

    Raises ValueError as :func:`merged`, for either packet.
    """
    root = parsed(packet)
    into, more = _rdf_of(root), _rdf_of(parsed(extended))
    into.extend(list(more))
    for description in into:
        description.attrib.pop(_HAS_EXTENDED, None)
    both = ET.tostring(root, encoding="utf-8", xml_declaration=False)
    if len(both) > BLOCK_LIMIT_BYTES:
        raise ValueError(f"an XMP packet of {len(both)} bytes, above the limit of {BLOCK_LIMIT_BYTES}; leave it out")
    return bytes(both)


def properties(packet: bytes) -> dict[str, str]:
    """The value of each property by its name ("{namespace}name"), independent of its notation in RDF/XML.

    Raises ValueError as :func:`merged`.
    """
    return {name: json.dumps(_value(element), sort_keys=True) for name, element in _elements(packet).items()}


def lacking(wanted: bytes, found: bytes) -> str:
    """Names of the properties of the packet ``wanted`` that are missing or different in ``found``; empty if none are.

    Properties to which a result adds need only contain the wanted value.
    """
    try:
        told, there = _values_of(wanted), _values_of(found)
    except ValueError as error:
        return str(error)
    added_to = (f"{_DC}description", f"{_DC}source", CREATOR_TOOL, _HISTORY)
    names = [
        name
        for name, value in told.items()
        if name not in there or not (_holds(there[name], value) if name in added_to else there[name] == value)
    ]
    return ", ".join(names)


def _values_of(packet: bytes) -> dict[str, Any]:
    return {name: _value(element) for name, element in _elements(packet).items()} if packet else {}


def _holds(found: Any, wanted: Any) -> bool:
    """True if every text, field and item of ``wanted`` is contained in ``found``."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(name in found and _holds(found[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and all(any(_holds(each, item) for each in found) for item in wanted)
    return isinstance(found, str) and wanted in found


def clean(text: str) -> str:
    """``text`` without the characters that XML cannot hold: control characters, unpaired surrogates.

    >>> clean("a\\0b\\udcff")
    'ab'
    """
    return _NOT_XML.sub("", text)


def _elements(packet: bytes) -> dict[str, ET.Element]:
    """Each property of the resource as an element; properties in attribute form are converted."""
    found: dict[str, ET.Element] = {}
    for description in _rdf_of(parsed(packet)).findall(f"{_RDF}Description"):
        for name, text in description.attrib.items():
            if name.startswith("{") and not name.startswith((_RDF, _XML)):
                found[name] = ET.Element(name)
                found[name].text = text
        for element in description:
            found[element.tag] = copy.deepcopy(element)
            found[element.tag].tail = None
    return found


def _rdf_of(root: ET.Element) -> ET.Element:
    rdf = root if root.tag == f"{_RDF}RDF" else root.find(f".//{_RDF}RDF")
    if rdf is None:
        raise ValueError("an XMP packet without rdf:RDF; leave it out")
    return rdf


def parsed(packet: bytes) -> ET.Element:
    """The root of an XML document from an untrusted file. Raises ValueError as :func:`merged`."""
    packet = packet.strip(b"\0 \r\n\t")
    if len(packet) > BLOCK_LIMIT_BYTES:
        raise ValueError(f"an XMP packet of {len(packet)} bytes, above the limit of {BLOCK_LIMIT_BYTES}; leave it out")
    try:
        _check(packet)
        return ET.fromstring(packet)
    except (expat.ExpatError, ET.ParseError, LookupError) as error:
        raise ValueError(f"damaged XMP ({error}); leave it out") from None


def _check(packet: bytes) -> None:
    """Raises ValueError for a document type, too many elements, or elements nested too deeply."""
    depth = count = 0

    def refuse(*_: object) -> None:
        raise ValueError("an XMP packet with a document type, which may declare entities without bound; leave it out")

    def start(*_: object) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > _DEPTH_LIMIT or count > _ELEMENT_LIMIT:
            raise ValueError(
                f"an XMP packet of more than {_DEPTH_LIMIT} levels or {_ELEMENT_LIMIT} elements; leave it out"
            )

    def end(*_: object) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.Parse(packet, True)


def _value(element: ET.Element) -> Any:
    """An element's value as plain data: a text, a list of an array's items, or the fields of a structure."""
    fields: dict[str, Any] = {
        name: text for name, text in element.attrib.items() if not name.startswith((_RDF, _XML)) and name[0] == "{"
    }
    for child in element:
        if child.tag in (f"{_RDF}Alt", f"{_RDF}Bag", f"{_RDF}Seq"):
            return [child.tag.removeprefix(_RDF), *(_item(item) for item in child)]
        if child.tag == f"{_RDF}Description":
            inner = _value(child)
            fields |= inner if isinstance(inner, dict) else {}
        else:
            fields[child.tag] = _value(child)
    return fields or element.get(f"{_RDF}resource") or (element.text or "")


def _item(item: ET.Element) -> Any:
    language = item.get(f"{_XML}lang")
    return _value(item) if language is None else {language: _value(item)}


def _text(element: ET.Element | None) -> str:
    """The text of a simple property, or of the default language if there are several."""
    if element is None:
        return ""
    items = element.findall(f"{_RDF}Alt/{_RDF}li")
    default = [item for item in items if item.get(f"{_XML}lang") == "x-default"] or items or [element]
    return default[0].text or ""


def _joined(theirs: ET.Element, ours: ET.Element, joint: str) -> ET.Element:
    """Our element with their text in front, and their other languages at the end."""
    both = copy.deepcopy(ours)
    items = both.findall(f"{_RDF}Alt/{_RDF}li")
    target = items[0] if items else both
    before, text = _text(theirs), target.text or ""
    if before not in text:  # ours may already contain the scan's text, or the scan be a result itself
        target.text = before if text in before else before + joint + text
    for alternatives in both.findall(f"{_RDF}Alt"):
        others = theirs.findall(f"{_RDF}Alt/{_RDF}li")
        alternatives.extend(each for each in others if each.get(f"{_XML}lang", "x-default") != "x-default")
    return both


def _history(theirs: dict[str, ET.Element], ours: dict[str, ET.Element], tool: str) -> ET.Element:
    """Their history, then an entry for the making of the scan and one for its colouring; without times, as always."""
    history = ET.Element(_HISTORY)
    entries = ET.SubElement(history, f"{_RDF}Seq")
    if _HISTORY in theirs:
        entries.extend(theirs[_HISTORY].findall(f"{_RDF}Seq/{_RDF}li"))
    source_type = _text(theirs.get(DIGITAL_SOURCE_TYPE))
    resource = theirs[DIGITAL_SOURCE_TYPE].get(f"{_RDF}resource", "") if DIGITAL_SOURCE_TYPE in theirs else ""
    scan = {
        "softwareAgent": _text(theirs.get(CREATOR_TOOL)) or _text(theirs.get(f"{_TIFF}Software")) or tool,
        "instanceID": _text(theirs.get(_INSTANCE)),
        "parameters": f"digital source type {source_type or resource}" if source_type or resource else "",
    }
    if any(scan.values()):
        _add_event(entries, {"action": "created", **scan})
    coloured = {"action": "edited", "softwareAgent": _text(ours.get(CREATOR_TOOL)), "parameters": "colour added"}
    _add_event(entries, coloured)
    return history


def _add_event(entries: ET.Element, fields: dict[str, str]) -> None:
    item = ET.SubElement(entries, f"{_RDF}li", {f"{_RDF}parseType": "Resource"})
    for name, text in fields.items():
        if text:
            ET.SubElement(item, _EVENT + name).text = clean(text)
