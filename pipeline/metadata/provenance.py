"""Provenance in a picture, for any program: an algorithm added its colour, which one, and from what source.

It is an XMP packet with IPTC's Digital Source Type. ``compositeWithTrainedAlgorithmicMedia`` is IPTC's term for media
that a trained model augmented: the strongest statement that is true of a scan whose chroma a network predicted.

A sidecar also describes the colouring as a PREMIS event, which archives' systems can import. Its type is
"modification", which since 2017 means that a new object, related to the old one, is created.

References
----------
IPTC Photo Metadata Standard 2023.2, "Digital Source Type"; its terms: http://cv.iptc.org/newscodes/digitalsourcetype/.
ISO 16684-1:2019 (XMP); Adobe XMP Specification Part 3, "Storage in Files": TIFF tag 700.
PREMIS Data Dictionary 3.0 (2015), 2.1-2.6 and 1.5.2; terms of http://id.loc.gov/vocabulary/preservation/; "2017
Revisions of Events Vocabulary", https://lcnetdev.github.io/standards/premis/events-announcement.html.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from pipeline.metadata.exif import SOFTWARE, readable_tags
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.metadata.xmp import CREATOR_TOOL, DIGITAL_SOURCE_TYPE, clean, merged, properties

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"

_SOFTWARE = b"colorize-archive "
_LONGEST_TEXT = 500

_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
   <Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>
   <xmp:CreatorTool>{software}</xmp:CreatorTool>
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
   <dc:source>{source}</dc:source>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


FILE_NAME = "file name"
"""The type of an identifier that is the name of a file."""
_TERMS = "http://id.loc.gov/vocabulary/preservation/"


def xmp_packet(software: str, description: str, source: str, scan: bytes = b"", scan_software: str = "") -> bytes:
    """The packet, UTF-8; no time stamp, so that the same scan gives the same bytes.

    Parameters
    ----------
    software : with its version and the model
    description : for people
    source : identification of the scan, such as its name and hash
    scan : the scan's own packet, whose properties are taken over
    scan_software : the software that made the scan, if its packet does not name it

    Raises ValueError, one line, if the scan's packet is damaged or refused.
    """
    fields = {"software": software, "description": description, "source": source, "source_type": SOURCE_TYPE}
    packet = _PACKET.format(**{name: escape(clean(value)) for name, value in fields.items()}).encode()
    return merged(scan, packet, scan_software) if scan or scan_software else packet


def made_by(embedded: EmbeddedMetadata) -> dict[str, str]:
    """What a picture says of its making: ``creator_tool`` and ``digital_source_type`` of XMP, ``software`` of EXIF."""
    told: dict[str, str] = {}
    with contextlib.suppress(ValueError):
        found = properties(embedded.xmp) if embedded.xmp else {}
        for name, key in ((CREATOR_TOOL, "creator_tool"), (DIGITAL_SOURCE_TYPE, "digital_source_type")):
            value = json.loads(found.get(name, "null"))
            if isinstance(value, str):
                told[key] = value
    tags = {**{tag.code: tag for tag in embedded.tags}, **readable_tags(embedded.exif)}
    if SOFTWARE in tags:
        told["software"] = tags[SOFTWARE].value.decode("utf-8", "replace").strip("\0 ")
    return {name: text[:_LONGEST_TEXT] for name, value in told.items() if (text := clean(" ".join(value.split())))}


def is_of_result(packet: bytes) -> bool:
    """True if an XMP packet belongs to a picture that this project coloured."""
    return SOURCE_TYPE.encode() in packet and _SOFTWARE in packet


def premis_event(
    when: str,
    detail: str,
    agents: Mapping[str, str],
    source: tuple[str, str],
    result: tuple[str, str],
    notes: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The colouring of a scan as a PREMIS 3 event, with the dictionary's names; JSON values.

    Parameters
    ----------
    when : end of the event, ISO 8601 with time zone
    detail : description of the event, for people
    agents : software and model, each with its version or SHA-256, such as {"colorize-archive": "0.5.0"}
    source, result : name and SHA-256 of the scan and of the picture
    notes : such as metadata not carried; with notes the outcome is "warning", else "success"
    """
    outcome = term("eventOutcome", "war", "warning") if notes else term("eventOutcome", "suc", "success")
    objects = [(*source, "sou", "source"), (*result, "out", "outcome")]
    return {
        "eventIdentifier": _identifier(when, *source, *result),
        "eventType": term("eventType", "mod", "modification"),
        "eventDateTime": when,
        "eventDetailInformation": [{"eventDetail": detail}],
        "eventOutcomeInformation": [
            {"eventOutcome": outcome, "eventOutcomeDetail": [{"eventOutcomeDetailNote": note} for note in notes]}
        ],
        "linkingAgentIdentifier": [_program(f"{name} {value}") for name, value in agents.items()],
        "linkingObjectIdentifier": [
            {
                "linkingObjectIdentifierType": FILE_NAME,
                "linkingObjectIdentifierValue": name,
                "linkingObjectRole": [term("eventRelatedObjectRole", code, role)],
                # Belongs to the object (1.5.2); repeated here so that the event alone identifies the bytes.
                "fixity": {
                    "messageDigestAlgorithm": term("cryptographicHashFunctions", "sha256", "SHA-256"),
                    "messageDigest": sha256,
                },
            }
            for name, sha256, code, role in objects
        ],
    }


def premis_review(
    when: str, decision: str, person: str, note: str, version: tuple[str, str], identifier: str
) -> dict[str, Any]:
    """A person's decision about a result as a PREMIS 3 event; JSON values.

    The type is a local one: the Library of Congress's list of event types has none for a person's judgement.

    Parameters
    ----------
    when : ISO 8601 with time zone
    decision : such as "approve"
    note : for people; may be empty
    version : name of the version of colours, and SHA-256 of the scan that they belong to
    identifier : of the decision
    """
    detail: dict[str, Any] = {"eventOutcome": {"value": decision}}
    if note:
        detail["eventOutcomeDetail"] = [{"eventOutcomeDetailNote": note}]
    return {
        "eventIdentifier": _identifier(when, identifier, person, *version),
        "eventType": {"value": "review by a person"},
        "eventDateTime": when,
        "eventDetailInformation": [
            {"eventDetail": f"colours of version {version[0]} looked at and decided on by a person"}
        ],
        "eventOutcomeInformation": [detail],
        "linkingAgentIdentifier": [
            {
                "linkingAgentIdentifierType": "name of a person, as given",
                "linkingAgentIdentifierValue": person,
                "linkingAgentRole": [term("eventRelatedAgentRole", "imp", "implementer")],
            }
        ],
        "linkingObjectIdentifier": [_colours(*version)],
    }


def premis_withdrawal(
    when: str, reason: str, agent: str, removed: Sequence[str], version: tuple[str, str]
) -> dict[str, Any]:
    """The removal of copies that may no longer go out as a PREMIS 3 event; JSON values.

    Parameters
    ----------
    when : ISO 8601 with time zone
    agent : the program with its version
    removed : names of the files
    version : name of the version of colours, and SHA-256 of the scan that they belong to
    """
    return {
        "eventIdentifier": _identifier(when, *removed, *version),
        "eventType": term("eventType", "del", "deletion"),
        "eventDateTime": when,
        "eventDetailInformation": [{"eventDetail": f"withdrawn: {', '.join(removed)}"}],
        "eventOutcomeInformation": [
            {
                "eventOutcome": term("eventOutcome", "suc", "success"),
                "eventOutcomeDetail": [{"eventOutcomeDetailNote": reason}],
            }
        ],
        "linkingAgentIdentifier": [_program(agent)],
        "linkingObjectIdentifier": [_colours(*version)],
    }


def _identifier(*parts: str) -> dict[str, str]:
    """Of an event, the same for the same ``parts``."""
    value = uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(parts))
    return {"eventIdentifierType": "UUID", "eventIdentifierValue": str(value)}


def _program(name_and_version: str) -> dict[str, Any]:
    """A program as an agent."""
    return {
        "linkingAgentIdentifierType": "name and version or SHA-256",
        "linkingAgentIdentifierValue": name_and_version,
        "linkingAgentRole": [term("eventRelatedAgentRole", "exe", "executing program")],
    }


def _colours(version: str, scan_sha256: str) -> dict[str, Any]:
    """A version of a scan's colours as an object."""
    return {
        "linkingObjectIdentifierType": "SHA-256 of the scan, and version of its colours",
        "linkingObjectIdentifierValue": f"{scan_sha256} {version}",
        "linkingObjectRole": [term("eventRelatedObjectRole", "sou", "source")],
    }


def term(scheme: str, code: str, label: str) -> dict[str, str]:
    """A term of the Library of Congress's preservation vocabularies."""
    return {
        "authority": scheme,
        "authorityURI": _TERMS + scheme,
        "valueURI": f"{_TERMS}{scheme}/{code}",
        "value": label,
    }
