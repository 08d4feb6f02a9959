"""A METS document of one scan in a package: description, PREMIS, the files, and how they belong together.

References
----------
METS 1.12 (Library of Congress, 2018); Dublin Core Metadata Element Set 1.1 (ISO 15836-1).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from urllib.parse import quote

from flows.sharing.contents import COLOURS, DECISIONS, ORIGINAL, Digests
from flows.sharing.outgoing import Outgoing
from pipeline.metadata.description import NO_LANGUAGE, Texts
from pipeline.metadata.xmp import clean

_METS, _XLINK = "http://www.loc.gov/METS/", "http://www.w3.org/1999/xlink"
_DC, _XML = "http://purl.org/dc/elements/1.1/", "http://www.w3.org/XML/1998/namespace"
ET.register_namespace("mets", _METS)
ET.register_namespace("xlink", _XLINK)
ET.register_namespace("dc", _DC)
_USES = {ORIGINAL: "original", COLOURS: "derivative", DECISIONS: "decisions"}


def mets_of(result: Outgoing, files: Mapping[str, Digests], premis: bytes) -> bytes:
    """The document of a scan whose package has ``files``, by path beside it; ``premis`` is put into it."""
    root = ET.Element(_name("mets"), {"OBJID": result.address, "LABEL": clean(result.name), "TYPE": "picture"})
    header = ET.SubElement(root, _name("metsHdr"), {"CREATEDATE": _when(result.sidecar.finished)})
    agent = ET.SubElement(header, _name("agent"), {"ROLE": "CREATOR", "TYPE": "OTHER", "OTHERTYPE": "software"})
    ET.SubElement(agent, _name("name")).text = clean(result.sidecar.software)
    described = ET.SubElement(root, _name("dmdSec"), {"ID": "dmd"})
    wrapped = ET.SubElement(described, _name("mdWrap"), {"MDTYPE": "DC"})
    _describe(ET.SubElement(wrapped, _name("xmlData")), result)
    made = ET.SubElement(ET.SubElement(root, _name("amdSec"), {"ID": "amd"}), _name("digiprovMD"), {"ID": "premis"})
    wrapped = ET.SubElement(made, _name("mdWrap"), {"MDTYPE": "PREMIS", "MDTYPEVERSION": "3.0"})
    ET.SubElement(wrapped, _name("xmlData")).append(ET.fromstring(premis))
    pointers = _file_section(root, files)
    structure = ET.SubElement(root, _name("structMap"), {"TYPE": "physical"})
    division = ET.SubElement(structure, _name("div"), {"TYPE": "picture", "DMDID": "dmd", "ADMID": "premis"})
    for pointer in pointers:
        ET.SubElement(division, _name("fptr"), {"FILEID": pointer})
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _file_section(root: ET.Element, files: Mapping[str, Digests]) -> list[str]:
    section = ET.SubElement(root, _name("fileSec"))
    groups: dict[str, ET.Element] = {}
    pointers = []
    for number, (path, digests) in enumerate(files.items(), 1):
        use = _USES.get(path.partition("/")[0], "record")
        if use not in groups:
            groups[use] = ET.SubElement(section, _name("fileGrp"), {"USE": use})
        pointers.append(f"file-{number}")
        values = {"ID": pointers[-1], "SIZE": str(digests.bytes), "CHECKSUM": digests.sha256, "CHECKSUMTYPE": "SHA-256"}
        file = ET.SubElement(groups[use], _name("file"), values)
        place = {"LOCTYPE": "URL", f"{{{_XLINK}}}type": "simple", f"{{{_XLINK}}}href": quote(path)}
        ET.SubElement(file, _name("FLocat"), place)
    return pointers


def _describe(parent: ET.Element, result: Outgoing) -> None:
    told = result.description
    identifier: Texts = {NO_LANGUAGE: (result.code,)} if result.code else told.identifier
    values = {
        "title": told.title or {NO_LANGUAGE: (result.name,)},
        "description": told.summary,
        "creator": told.creator,
        "date": told.date,
        "rights": told.rights,
        "subject": told.subject,
        "coverage": told.place,
        "identifier": identifier,
    }
    for name, texts in values.items():
        for language, each in texts.items():
            for text in each:
                element = ET.SubElement(parent, f"{{{_DC}}}{name}")
                element.text = clean(text)
                if language != NO_LANGUAGE:
                    element.set(f"{{{_XML}}}lang", language)


def _when(time: str) -> str:
    """A time as METS has it (xsd:dateTime)."""
    return time.replace(" ", "T") if time else "1970-01-01T00:00:00Z"


def _name(local: str) -> str:
    return f"{{{_METS}}}{local}"
