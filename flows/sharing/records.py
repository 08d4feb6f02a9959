"""The record of a result for others: its sidecar without paths of this machine, and the same as PREMIS."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from flows.sharing.outgoing import Outgoing
from pipeline.metadata.premis import Agent, FileObject, agents_of, premis_xml
from pipeline.results.sidecar import Sidecar


def public_record(sidecar: Sidecar) -> dict[str, Any]:
    """The sidecar's JSON; of paths only the names are left."""
    source, copied = sidecar.source, sidecar.palette_copy
    told = replace(
        sidecar,
        source=source and replace(source, path=source.name),
        palette_copy=copied and replace(copied, path=copied.name),
    )
    return told.to_json()


def as_json(value: Mapping[str, Any]) -> bytes:
    """Indented JSON; what is not Unicode in a name is spelt out."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def premis_of(result: Outgoing, organization: tuple[str, str] | None = None, names_people: bool = True) -> bytes:
    """PREMIS 3 in XML of a scan, its pictures, their making, and the decisions on them.

    Parameters
    ----------
    organization : address and name of the institution
    names_people : whether those who decided are named
    """
    events = list(events_of(result, names_people))
    agents = list(agents_of(events))
    if organization is not None:
        agents.append(Agent("URI", *organization, "organization"))
    return premis_xml(list(objects_of(result)), events, agents)


def objects_of(result: Outgoing) -> Iterator[FileObject]:
    """The scan, and each of its pictures."""
    source = result.source
    yield FileObject(source.name, source.sha256, source.bytes, str(source.metadata.get("format") or ""))
    for name, picture in result.sidecar.pictures.items():
        if picture.file:
            yield FileObject(picture.file, picture.sha256, picture.bytes, _FORMATS.get(name, name), source.name)


def events_of(result: Outgoing, names_people: bool = True) -> Iterator[Mapping[str, Any]]:
    """What happened to the scan, as PREMIS in JSON: how its pictures were made, and what people decided."""
    for picture in result.sidecar.pictures.values():
        if picture.premis:
            yield picture.premis
    for decision in result.decisions:
        person = decision.person if names_people else NOBODY
        yield replace(decision, person=person, note=decision.note if names_people else "").to_json()["premis"]


# Who decided, where people are not named.
NOBODY = "a person of the institution"

_FORMATS = {
    "tiff": "TIFF",
    "cog": "Cloud-optimized GeoTIFF",
    "omezarr": "OME-Zarr",
    "jp2": "JPEG 2000",
    "png": "PNG",
    "jpeg": "JPEG",
    "iiif": "IIIF Image API 3 tiles",
}
