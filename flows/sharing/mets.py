"""A METS document of one scan in a package: description, PREMIS, the files, and how they belong together.

References
----------
METS 1.12 (Library of Congress, 2018); Dublin Core Metadata Element Set 1.1 (ISO 15836-1).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from mimetypes import MimeTypes
from urllib.parse import quote

from flows.sharing.contents import COLOURS, DECISIONS, METS, ORIGINAL, PREMIS, Digests
from flows.sharing.outgoing import Outgoing
from pipeline.metadata.description import NO_LANGUAGE, Texts
from pipeline.metadata.xmp import clean
from pipeline.results.credentials import CREDENTIAL_ENDING

METS_NAMESPACE, XLINK_NAMESPACE = "http://www.loc.gov/METS/", "http://www.w3.org/1999/xlink"
_DC, _XML = "http://purl.org/dc/elements/1.1/", "http://www.w3.org/XML/1998/namespace"
ET.register_namespace("mets", METS_NAMESPACE)
ET.register_namespace("xlink", XLINK_NAMESPACE)
ET.register_namespace("dc", _DC)
_USES = {ORIGINAL: "original", COLOURS: "derivative", DECISIONS: "decisions", PREMIS: "metadata", METS: "metadata"}
# Without the lists of the machine, so that the same results give the same document everywhere.
_TYPES = MimeTypes()
for _type, _endings in {
    "application/c2pa": (".c2pa",),
    "image/avif": (".avif",),
    "image/jls": (".jls",),
    "image/jp2": (".jp2",),
    "image/jpx": (".jpf", ".jpx"),
    "image/jxl": (".jxl",),
    "image/webp": (".webp",),
    "text/xml": (".xml",),
}.items():
    for _ending in _endings:
        _TYPES.add_type(_type, _ending)


def mets_of(result: Outgoing, files: Mapping[str, Digests], premis: bytes) -> bytes:
    """The document of a scan whose package has ``files``, by path beside it; ``premis`` is put into it."""
    root = ET.Element(_name("mets"), {"OBJID": result.address, "LABEL": clean(result.name), "TYPE": "picture"})
    header = ET.SubElement(root, _name("metsHdr"), {"CREATEDATE": time_of(result.sidecar.finished)})
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
        use = use_of(path)
        if use not in groups:
            groups[use] = ET.SubElement(section, _name("fileGrp"), {"USE": use})
        pointers.append(f"file-{number}")
        file = ET.SubElement(groups[use], _name("file"), {"ID": pointers[-1], **facts_of(path, digests)})
        place = {"LOCTYPE": "URL", f"{{{XLINK_NAMESPACE}}}type": "simple", f"{{{XLINK_NAMESPACE}}}href": quote(path)}
        ET.SubElement(file, _name("FLocat"), place)
    return pointers


def use_of(path: str) -> str:
    """What a file of a scan is for (METS: USE), by its path in the scan's folder.

    >>> [use_of(path) for path in ("original/a.tif", "colours/a.color.jp2.c2pa", "record.json")]
    ['original', 'credentials', 'record']
    """
    folder = path.partition("/")[0]
    return "credentials" if folder == COLOURS and path.endswith(CREDENTIAL_ENDING) else _USES.get(folder, "record")


def facts_of(path: str, digests: Digests) -> dict[str, str]:
    """What METS says of a file, or of metadata in a file: type, size, checksum."""
    kind = _TYPES.guess_type(path)[0] or "application/octet-stream"
    return {"MIMETYPE": kind, "SIZE": str(digests.bytes), "CHECKSUM": digests.sha256, "CHECKSUMTYPE": "SHA-256"}


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


def time_of(time: str) -> str:
    """A time as METS has it (xsd:dateTime)."""
    return time.replace(" ", "T") if time else "1970-01-01T00:00:00Z"


def _name(local: str) -> str:
    return f"{{{METS_NAMESPACE}}}{local}"
