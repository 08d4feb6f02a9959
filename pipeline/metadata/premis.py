"""The record of a result as PREMIS 3 in XML: the files, what happened to them, and who or what did it.

The events are those of the sidecar and of the decisions, which are PREMIS in JSON already: names and order are the
data dictionary's, so that each value becomes the element of its name.

References
----------
PREMIS Data Dictionary 3.0 (2015); "PREMIS Preservation Metadata XML Schema", 3.0 of 18 January 2016.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.metadata.provenance import FILE_NAME, term
from pipeline.metadata.xmp import clean

NAMESPACE = "http://www.loc.gov/premis/v3"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_SCHEMA = "https://www.loc.gov/standards/premis/premis.xsd"
ET.register_namespace("premis", NAMESPACE)
ET.register_namespace("xsi", _XSI)
# Of an event's JSON, what the schema has no place for: the object says it.
_NOT_IN_EVENTS = frozenset(("fixity",))


@dataclass(frozen=True)
class FileObject:
    """One file.

    Attributes
    ----------
    name : identifies it; events link to it by this name
    sha256, bytes : of its contents; None if the size is not known
    format : for people, such as "TIFF"
    derived_from : name of the file that it was made from; empty for the first one
    original_name : where or what it was before; empty if there is nothing to say
    """

    name: str
    sha256: str
    bytes: int | None
    format: str
    derived_from: str = ""
    original_name: str = ""


@dataclass(frozen=True)
class Agent:
    """Who or what took part; ``kind`` is "software", "person" or "organization"."""

    id_type: str
    id: str
    name: str
    kind: str
    version: str = ""
    note: str = ""


def premis_xml(objects: Sequence[FileObject], events: Sequence[Mapping[str, Any]], agents: Iterable[Agent]) -> bytes:
    """The document, UTF-8. The same values give the same bytes.

    Parameters
    ----------
    events : as :func:`pipeline.metadata.provenance.premis_event` makes them
    """
    root = premis_element(objects, events, agents)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def premis_element(
    objects: Sequence[FileObject], events: Sequence[Mapping[str, Any]], agents: Iterable[Agent]
) -> ET.Element:
    """As :func:`premis_xml`, to be put into another document."""
    root = ET.Element(_name("premis"), {"version": "3.0", f"{{{_XSI}}}schemaLocation": f"{NAMESPACE} {_SCHEMA}"})
    for each in objects:
        made = [other for other in objects if other.derived_from == each.name]
        root.append(_object(each, made, events))
    root.extend(_element("event", event) for event in events)
    root.extend(_agent(agent) for agent in dict.fromkeys(agents))
    return root


def agents_of(events: Iterable[Mapping[str, Any]]) -> Iterator[Agent]:
    """The agents that events link to: what executed them is software, everybody else a person."""
    for event in events:
        for link in event.get("linkingAgentIdentifier", ()):
            kind, value = str(link["linkingAgentIdentifierType"]), str(link["linkingAgentIdentifierValue"])
            roles = [role.get("value") if isinstance(role, Mapping) else role for role in link["linkingAgentRole"]]
            if "executing program" not in roles:
                yield Agent(kind, value, value, "person")
                continue
            name, _, version = value.rpartition(" ")
            name = name.removesuffix(" SHA-256")
            yield Agent(kind, value, name or value, "software", version)


def _object(each: FileObject, made: Sequence[FileObject], events: Sequence[Mapping[str, Any]]) -> ET.Element:
    characteristics: dict[str, Any] = {
        "fixity": {
            "messageDigestAlgorithm": term("cryptographicHashFunctions", "sha256", "SHA-256"),
            "messageDigest": each.sha256,
        },
    }
    if each.bytes is not None:
        characteristics["size"] = each.bytes
    characteristics["format"] = {"formatDesignation": {"formatName": each.format or "unknown"}}
    values: dict[str, Any] = {"objectIdentifier": _identifier("object", each.name)}
    values["objectCharacteristics"] = characteristics
    if each.original_name:
        values["originalName"] = each.original_name
    relations = [_relation("hsc", "has source", each.derived_from, events)] if each.derived_from else []
    relations += [_relation("iso", "is source of", other.name, events) for other in made]
    if relations:
        values["relationship"] = relations
    element = _element("object", values)
    element.set(f"{{{_XSI}}}type", "premis:file")
    return element


def _relation(code: str, label: str, other: str, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    joined = [e["eventIdentifier"] for e in events if _links(e, other)]
    return {
        "relationshipType": term("relationshipType", "der", "derivation"),
        "relationshipSubType": term("relationshipSubType", code, label),
        "relatedObjectIdentifier": _identifier("relatedObject", other),
        "relatedEventIdentifier": [
            {
                "relatedEventIdentifierType": e["eventIdentifierType"],
                "relatedEventIdentifierValue": e["eventIdentifierValue"],
            }
            for e in joined
        ],
    }


def _links(event: Mapping[str, Any], name: str) -> bool:
    links = event.get("linkingObjectIdentifier", ())
    return len(links) > 1 and any(link["linkingObjectIdentifierValue"] == name for link in links)


def _identifier(of: str, name: str) -> dict[str, str]:
    return {f"{of}IdentifierType": FILE_NAME, f"{of}IdentifierValue": name}


def _agent(agent: Agent) -> ET.Element:
    values: dict[str, Any] = {
        "agentIdentifier": {"agentIdentifierType": agent.id_type, "agentIdentifierValue": agent.id},
        "agentName": agent.name,
        "agentType": term("agentType", {"software": "sof", "person": "per"}.get(agent.kind, "org"), agent.kind),
    }
    if agent.version:
        values["agentVersion"] = agent.version
    if agent.note:
        values["agentNote"] = agent.note
    return _element("agent", values)


def _element(name: str, value: Any) -> ET.Element:
    """An element of a JSON value: a text, a term with its authority, or the elements of its keys."""
    element = ET.Element(_name(name))
    if not isinstance(value, Mapping):
        element.text = clean(str(value))
        return element
    if "value" in value:
        element.attrib.update({key: str(text) for key, text in value.items() if key != "value"})
        element.text = clean(str(value["value"]))
        return element
    for key, inner in value.items():
        if key not in _NOT_IN_EVENTS or name != "linkingObjectIdentifier":
            element.extend(_element(key, each) for each in (inner if isinstance(inner, list) else [inner]))
    return element


def _name(local: str) -> str:
    return f"{{{NAMESPACE}}}{local}"
