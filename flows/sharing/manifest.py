"""IIIF Presentation 3: a manifest for each scan, whose canvas offers the scan and its colours, and the collections.

Both pictures are painted onto one canvas as a ``Choice``, so that viewers switch between them without losing the place.

References
----------
IIIF Presentation API 3.0 (https://iiif.io/api/presentation/3.0/); IIIF Cookbook 0033 (multiple choice of images in a
single view).
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flows.sharing.outgoing import Outgoing, address_of
from flows.sharing.wording import WORDS, Wording
from pipeline.formats.labels import Label
from pipeline.metadata.description import NO_LANGUAGE, Description, Texts

CONTEXT = "http://iiif.io/api/presentation/3/context.json"
SCAN, COLOURS = "scan", "colours"
MANIFEST, RECORD, PREMIS = "manifest.json", "record.json", "premis.xml"
_THUMBNAIL_PX = 320
_LARGEST = "full/max/0/default.jpg"


@dataclass(frozen=True)
class Entry:
    """What collections and the search know of one scan; texts are language maps.

    Attributes
    ----------
    address : of its folder below ``items``
    folder : of the result, below that of all results
    name, code, title : to be found by
    thumbnail : path below its folder, with width and height
    """

    address: str
    folder: str
    name: str
    code: str
    title: Texts
    thumbnail: tuple[str, int, int]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "title": {name: list(texts) for name, texts in self.title.items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Entry:
        """An entry from the output of :meth:`to_json`. Raises KeyError, TypeError, ValueError for anything else."""
        path, width, height = values["thumbnail"]
        texts = {str(name): tuple(map(str, each)) for name, each in values["title"].items()}
        address, folder, name, code = (str(values[each]) for each in ("address", "folder", "name", "code"))
        return cls(address, folder, name, code, texts, (str(path), int(width), int(height)))

    @property
    def label(self) -> dict[str, list[str]]:
        """The scan's title, or else its name; with its reference code."""
        return _lists(_with_code(self.title, self.code)) or {NO_LANGUAGE: [_joined(self.code, self.name)]}


def entry_of(result: Outgoing, info: Mapping[str, Any]) -> Entry:
    """The entry of a result; ``info`` is the ``info.json`` of its colours."""
    sizes = sorted((int(size["width"]), int(size["height"])) for size in info["sizes"])
    width, height = next((size for size in sizes if max(size) >= _THUMBNAIL_PX), sizes[-1])
    thumbnail = (f"{COLOURS}/full/{width},{height}/0/default.jpg", width, height)
    folder = result.folder
    return Entry(result.address, folder, result.name, result.code, result.description.title, thumbnail)


def manifest_of(
    result: Outgoing, entry: Entry, infos: Mapping[str, Mapping[str, Any]], wording: Wording, base_url: str
) -> dict[str, Any]:
    """The manifest of one scan.

    Parameters
    ----------
    infos : the ``info.json`` of the scan and of the colours
    base_url : address of the site, without a slash at the end
    """
    home = f"{base_url}/items/{entry.address}"
    width, height = int(infos[COLOURS]["width"]), int(infos[COLOURS]["height"])
    order = (COLOURS, SCAN) if wording.first == "colours" else (SCAN, COLOURS)
    choices = [_image(f"{home}/{part}", infos[part], WORDS[part]) for part in order]
    painting = {
        "id": f"{home}/canvas/page/painting",
        "type": "Annotation",
        "motivation": "painting",
        "body": {"type": "Choice", "items": choices},
        "target": f"{home}/canvas",
    }
    canvas = {
        "id": f"{home}/canvas",
        "type": "Canvas",
        "label": entry.label,
        "height": height,
        "width": width,
        "items": [{"id": f"{home}/canvas/page", "type": "AnnotationPage", "items": [painting]}],
    }
    told = result.description
    made: dict[str, Any] = {
        "@context": CONTEXT,
        "id": f"{home}/{MANIFEST}",
        "type": "Manifest",
        "label": entry.label,
    }
    if told.summary:
        made["summary"] = _lists(_unmarked(told.summary))
    made["metadata"] = [_pair(name, value) for name, value in _metadata(result, told, wording) if value]
    statement = _unmarked(_with_label(wording.required_statement(), result.label))
    made["requiredStatement"] = {"label": _lists(WORDS["note"]), "value": _lists(statement)}
    if wording.rights:
        made["rights"] = wording.rights
    made |= _provider(wording)
    made["thumbnail"] = [_thumbnail(entry, base_url)]
    made["seeAlso"] = [
        _dataset(f"{home}/{RECORD}", "application/json", WORDS["record"]),
        {**_dataset(f"{home}/{PREMIS}", "application/xml", WORDS["premis"]), "profile": "http://www.loc.gov/premis/v3"},
    ]
    made["homepage"] = [_homepage(f"{base_url}/index.html#{entry.address}", entry.label)]
    made["partOf"] = [{"id": collection_id(base_url, entry.folder), "type": "Collection"}]
    made["items"] = [canvas]
    return made


def collections_of(entries: Iterable[Entry], wording: Wording, base_url: str, title: str) -> dict[str, dict[str, Any]]:
    """A collection for each folder with scans in or below it, by folder; that of "" is above all others."""
    within: dict[str, list[Entry]] = {"": []}
    for entry in entries:
        parts = entry.folder.split("/") if entry.folder else []
        for count in range(1, len(parts) + 1):
            within.setdefault("/".join(parts[:count]), [])
        within[entry.folder].append(entry)
    made = {}
    for folder in sorted(within):
        below = [other for other in sorted(within) if other and other != folder and _parent(other) == folder]
        label = (_lists(wording.title) or {NO_LANGUAGE: [title]}) if not folder else {NO_LANGUAGE: [_last(folder)]}
        collection: dict[str, Any] = {
            "@context": CONTEXT,
            "id": collection_id(base_url, folder),
            "type": "Collection",
            "label": label,
            "requiredStatement": {
                "label": _lists(WORDS["note"]),
                "value": _lists(_unmarked(wording.required_statement())),
            },
            **_provider(wording),
            "homepage": [_homepage(f"{base_url}/index.html", label)],
        }
        if folder:
            collection["partOf"] = [{"id": collection_id(base_url, _parent(folder)), "type": "Collection"}]
        collection["items"] = [
            {"id": collection_id(base_url, other), "type": "Collection", "label": {NO_LANGUAGE: [_last(other)]}}
            for other in below
        ] + [
            {
                "id": f"{base_url}/items/{entry.address}/{MANIFEST}",
                "type": "Manifest",
                "label": entry.label,
                "thumbnail": [_thumbnail(entry, base_url)],
            }
            for entry in within[folder]
        ]
        made[folder] = collection
    return made


def collection_id(base_url: str, folder: str) -> str:
    """The address of a folder's collection."""
    return f"{base_url}/{collection_path(folder)}"


def collection_path(folder: str) -> str:
    """The file of a folder's collection, below the site."""
    return f"collections/{address_of(folder)}.json" if folder else "collection.json"


def _parent(folder: str) -> str:
    return folder.rpartition("/")[0]


def _last(folder: str) -> str:
    return folder.rpartition("/")[2]


def _image(service: str, info: Mapping[str, Any], label: Texts) -> dict[str, Any]:
    """A picture as the body of an annotation; its own size is that of the largest whole picture."""
    largest = max(((int(size["width"]), int(size["height"])) for size in info["sizes"]), default=(0, 0))
    return {
        "id": f"{service}/{_LARGEST}",
        "type": "Image",
        "format": "image/jpeg",
        "label": _lists(label),
        "width": largest[0],
        "height": largest[1],
        "service": [{"id": service, "type": "ImageService3", "profile": "level0"}],
    }


def _thumbnail(entry: Entry, base_url: str) -> dict[str, Any]:
    path, width, height = entry.thumbnail
    home = f"{base_url}/items/{entry.address}"
    service = {"id": f"{home}/{COLOURS}", "type": "ImageService3", "profile": "level0"}
    return {
        "id": f"{home}/{path}",
        "type": "Image",
        "format": "image/jpeg",
        "width": width,
        "height": height,
        "service": [service],
    }


def _metadata(result: Outgoing, told: Description, wording: Wording) -> Iterable[tuple[str, Texts]]:
    yield "identifier", {NO_LANGUAGE: (result.code,)} if result.code else told.identifier
    yield "creator", told.creator
    yield "date", told.date
    yield "place", told.place
    yield "subject", told.subject
    yield "rights", told.rights
    spec = result.sidecar.spec
    yield "model", {NO_LANGUAGE: (f"{result.sidecar.software}, {spec.model}",)} if spec else {}
    if not result.approved_by:
        yield "reviewed", WORDS["no"]
    elif wording.names_reviewers:
        yield "reviewed", {NO_LANGUAGE: result.approved_by}
    else:
        yield "reviewed", WORDS["yes"]


def _pair(name: str, value: Texts) -> dict[str, Any]:
    return {"label": _lists(WORDS[name]), "value": _lists(_unmarked(value))}


def _provider(wording: Wording) -> dict[str, Any]:
    provider = wording.provider
    if provider is None:
        return {}
    agent: dict[str, Any] = {"id": provider.id, "type": "Agent", "label": _lists(provider.label)}
    if provider.homepage:
        agent["homepage"] = [_homepage(provider.homepage, agent["label"])]
    if provider.logo:
        agent["logo"] = [{"id": provider.logo, "type": "Image"}]
    return {"provider": [agent]}


def _homepage(address: str, label: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": address, "type": "Text", "label": dict(label), "format": "text/html"}


def _dataset(address: str, format: str, label: Texts) -> dict[str, Any]:
    return {"id": address, "type": "Dataset", "label": _lists(label), "format": format}


def _unmarked(texts: Texts) -> Texts:
    """Texts that no viewer takes for HTML, as those that begin with "<" and end with ">" are (4.2)."""
    return {
        language: tuple(
            f"<span>{html.escape(text)}</span>" if text.startswith("<") and text.endswith(">") else text
            for text in each
        )
        for language, each in texts.items()
    }


def _with_label(texts: Texts, label: Label | None) -> Texts:
    """The statement, and what the picture's label says: where it has no language, in every one of the statement's."""
    made = {language: list(each) for language, each in texts.items()}
    for language, text in label.texts if label is not None else ():
        for name in [*made] if language == NO_LANGUAGE else [language]:
            each = made.setdefault(name, [])
            each += [text] if text not in each else []
    return {language: tuple(each) for language, each in made.items()}


def _with_code(texts: Texts, code: str) -> Texts:
    return {language: (_joined(code, each[0]), *each[1:]) for language, each in texts.items()}


def _joined(code: str, text: str) -> str:
    return f"{code}, {text}" if code else text


def _lists(texts: Texts) -> dict[str, list[str]]:
    return {language: list(each) for language, each in texts.items()}
