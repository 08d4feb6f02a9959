"""A site of scans and their colours for any web server: IIIF tiles and manifests, and a page to look at them.

    SITE/
      index.html page/        the page: search, viewer, curtain
      search.json             what the page knows of all scans
      collection.json collections/   IIIF collections: one a folder, and one above
      items/ADDRESS/          one scan: manifest.json, scan/ and colours/ (tiles), record.json, premis.xml, made.json
      site.json               marks the folder as ours, and keeps the address

An item is written beside its place and renamed, so that it is whole or not there. What may no longer go out is taken
from search and collections first and then removed, before anything is made.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from flows.sharing.manifest import (
    COLOURS,
    MANIFEST,
    PREMIS,
    RECORD,
    SCAN,
    Entry,
    collection_path,
    collections_of,
    entry_of,
    manifest_of,
)
from flows.sharing.outgoing import Kept, Outgoing, results_of
from flows.sharing.records import as_json, premis_of, public_record
from flows.sharing.renderings import renderings
from flows.sharing.wording import WORDS, Wording
from pipeline.errors import ColorizeError, OutputError, UsageError
from pipeline.formats import FORMATS, write_picture
from pipeline.formats.labels import labelled, with_room
from pipeline.formats.picture import SRGB_PROFILE
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.metadata.provenance import xmp_packet
from pipeline.support.files import LOCK_FILE, read_json, remove, write_json, write_whole, writing

DEFAULT_URL = "http://localhost:8000"
ITEMS, MARK, MADE, SEARCH = "items", "site.json", "made.json", "search.json"
PAGE = Path(__file__).with_name("page")
_PARTS, _INFO = (SCAN, COLOURS), "info.json"
_TILES = 1  # raised when the same scan would give other tiles
_WHAT = "a site of colorize-archive publish"
_BESIDE = (".part", ".old")

State = Literal["new", "changed", "same", "withdrawn", "failed"]


@dataclass(frozen=True)
class Step:
    """What became of one scan's item, or with ``--check`` what would."""

    state: State
    name: str
    reason: str = ""


@dataclass(frozen=True)
class Site:
    """Where to publish, and how.

    Attributes
    ----------
    folder : the site's
    output : the folder of results
    base_url : address at which the folder is served, without a slash at the end
    """

    folder: Path
    output: Path
    base_url: str
    wording: Wording
    unreviewed: bool = False
    codes: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1

    def item(self, address: str) -> Path:
        return self.folder / ITEMS / address


def open_site(folder: Path, output: Path, base_url: str | None, wording: Wording) -> Site:
    """The site in ``folder``, at the address that it has unless another is given.

    Raises
    ------
    UsageError : the folder holds something else, or lies among the results; the address is none
    """
    if not output.is_dir():
        raise UsageError(f"{output}: no folder, so there is nothing to publish; give the --output of earlier runs")
    if folder == output or output in folder.parents or folder in output.parents:
        raise UsageError(f"{folder}: among the results of {output}, where a run would find it; give another --to")
    mark = read_json(folder / MARK)
    if mark is None and folder.is_dir() and not all(_is_of_begun_site(path) for path in folder.iterdir()):
        raise UsageError(f"{folder}: holds other things, which could be replaced; give an empty folder, or a new one")
    if mark is not None and mark.get("what") != _WHAT:
        raise UsageError(f"{folder}: its {MARK} is not of a site like this, which could be lost; give another --to")
    address = base_url or str((mark or {}).get("base_url") or DEFAULT_URL)
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise UsageError(f"--base-url {address!r}: no address of a web server; give one like https://archive.example/x")
    return Site(folder, output, address.rstrip("/"), wording)


def _is_of_begun_site(path: Path) -> bool:
    """True for what is there before the mark, if publishing is killed so early."""
    return path.name == LOCK_FILE or (path.name.startswith(f"{MARK}.") and path.name.endswith(".part"))


def publish_site(site: Site) -> Iterator[Step | Kept]:
    """Bring the site up to date, one scan at a time; its folder must be locked.

    Raises OutputError if search or collections cannot be written; what fails for one scan is in its step.
    """
    with writing(site.folder):
        site.folder.mkdir(parents=True, exist_ok=True)
    # Before anything else: a folder that holds other things is not taken for a site.
    write_json(site.folder / MARK, {"what": _WHAT, "base_url": site.base_url})
    with writing(site.folder):
        (site.folder / ITEMS).mkdir(exist_ok=True)
    _remove_left_overs(site)
    _write_page(site)
    allowed: set[str] = set()
    for found in results_of(site.output, site.unreviewed, site.codes):
        if isinstance(found, Kept):
            yield found
        else:
            allowed.add(found.address)
    yield from _withdraw(site, allowed)
    entries = []
    for found in results_of(site.output, site.unreviewed, site.codes):
        if isinstance(found, Kept) or found.address not in allowed:
            continue
        try:
            state, entry = _make_item(site, found)
            entries.append(entry)
            yield Step(state, found.stem)
        except ColorizeError as error:
            if _stamps(site.item(found.address)) != _wanted_stamps(found):
                # What is there shows other colours than those that may go out.
                remove(site.item(found.address))
            yield Step("failed", found.stem, str(error))
    _write_index(site, entries)


def check_site(site: Site) -> Iterator[Step | Kept]:
    """What :func:`publish_site` would do, and which files of the site are missing or damaged. Writes nothing."""
    entries, allowed = [], set()
    for found in results_of(site.output, site.unreviewed, site.codes):
        if isinstance(found, Kept):
            yield found
            continue
        allowed.add(found.address)
        reason = _lacks(site, found)
        state: State = "same" if not reason else "new" if not site.item(found.address).is_dir() else "changed"
        yield Step(state, found.stem, reason)
        entries.append(_entry_there(site, found.address))
    for address in _items(site):
        if address not in allowed:
            yield Step("withdrawn", _name_of(site, address), "may no longer go out")
    there = [entry for entry in entries if entry is not None]
    for path, data in {**_page(), **_index(site, there)}.items():
        if not _holds(site.folder / path, data):
            yield Step("changed", path, "missing or older")


def _lacks(site: Site, result: Outgoing) -> str:
    """What an item lacks, in one line; empty if it is up to date."""
    folder = site.item(result.address)
    if not folder.is_dir():
        return "not there"
    if _stamps(folder) != _wanted_stamps(result):
        return "its tiles are of another version"
    for part in _PARTS:
        try:
            FORMATS["iiif"].levels(folder / part, result.source.shape_yx)
        except Exception as error:  # libraries have many kinds
            return f"{part}: {' '.join(str(error).split())}"
    files = _small_files(site, result, folder)[1]
    return next((f"{name}: missing or older" for name, data in files.items() if not _holds(folder / name, data)), "")


def _withdraw(site: Site, allowed: set[str]) -> Iterator[Step]:
    gone = [address for address in _items(site) if address not in allowed]
    if gone:
        kept = [entry for address in _items(site) if address in allowed and (entry := _entry_there(site, address))]
        _write_index(site, kept)
    for address in gone:
        name, path = _name_of(site, address), site.item(address)
        with writing(path):
            away = path.with_name(f"{path.name}.old")
            remove(away)
            path.rename(away)
            remove(away)
        yield Step("withdrawn", name)


def _remove_left_overs(site: Site) -> None:
    """Remove what a killed run left: a web server hands out anything that is there, what was being withdrawn, too."""
    with writing(site.folder):
        for path in (site.folder / ITEMS).iterdir():
            if path.name.endswith(_BESIDE):
                remove(path)


def _items(site: Site) -> list[str]:
    """Addresses of all items; leftovers of an interrupted run are told from them by their endings."""
    root = site.folder / ITEMS
    names = (path.name for path in root.iterdir()) if root.is_dir() else ()
    return sorted(name for name in names if not name.endswith(_BESIDE))


def _make_item(site: Site, result: Outgoing) -> tuple[State, Entry]:
    folder = site.item(result.address)
    is_new, whole = not folder.is_dir(), _whole_parts(folder, _wanted_stamps(result))
    if whole != set(_PARTS):
        made = folder.with_name(f"{folder.name}.part")
        with writing(folder):
            remove(made)
            made.mkdir()
        _write_tiles(result, folder, made, whole, site.threads)
        entry, files = _small_files(site, result, made)
        _write_files(made, files)
        _put(made, folder)
        return ("new" if is_new else "changed"), entry
    entry, files = _small_files(site, result, folder)
    return ("changed" if _write_files(folder, files) else "same"), entry


def _whole_parts(folder: Path, wanted: Mapping[str, str]) -> set[str]:
    """The pictures of an item whose tiles are those of ``wanted``, and as many and as large as were written."""
    told, stamps = read_json(folder / MADE) or {}, _stamps(folder)
    tiles = told.get("tiles")
    counted = tiles if isinstance(tiles, dict) else {}
    same = (part for part in _PARTS if stamps.get(part) == wanted[part] and (folder / part / _INFO).is_file())
    return {part for part in same if counted.get(part) == _census(folder / part)}


def _census(folder: Path) -> list[int]:
    """Number and bytes of all files below a folder but the one that has the site's address in it."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != _INFO]
    return [len(sizes), sum(sizes)]


def _write_tiles(result: Outgoing, before: Path, made: Path, same: set[str], threads: int) -> None:
    """Write the tiles of both pictures into ``made``; those that are the same are taken over from ``before``."""
    with renderings(result) as pictures:
        packet = xmp_packet(result.sidecar.software, _disclosure(result), _of_scan(result))
        colours = EmbeddedMetadata(icc=SRGB_PROFILE, xmp=packet)
        each = {
            SCAN: pictures.scan,
            COLOURS: replace(pictures.colours, embedded=colours, description=_disclosure(result)),
        }
        if (label := result.label) is not None:
            # Of one size, so that viewers lay one over the other.
            each = {SCAN: with_room(each[SCAN], label), COLOURS: labelled(each[COLOURS], label)}
        for part, picture in each.items():
            if part in same:
                with writing(made):
                    shutil.copytree(before / part, made / part, copy_function=_link)
            else:
                write_picture("iiif", made / part, picture, threads)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _disclosure(result: Outgoing) -> str:
    spec = result.sidecar.spec
    model = f", model {spec.model} {spec.model_sha256[:12]}" if spec else ""
    return f"Colour added by an algorithm: {result.sidecar.software}{model}. Lightness is that of the scan."


def _of_scan(result: Outgoing) -> str:
    return f"{result.source.name}, SHA-256 {result.source.sha256}"


def _put(made: Path, folder: Path) -> None:
    """Rename a finished folder into its place; an older one there is removed."""
    old = folder.with_name(f"{folder.name}.old")
    with writing(folder):
        remove(old)
        if folder.is_dir():
            folder.rename(old)
        made.rename(folder)
        remove(old)


def _infos(site: Site, result: Outgoing, folder: Path) -> dict[str, dict[str, Any]]:
    """The ``info.json`` of both pictures, with their addresses in full. Raises OutputError if one is damaged."""
    infos = {}
    for part in _PARTS:
        info = read_json(folder / part / _INFO)
        if info is None:
            raise OutputError(f"{folder / part}: its info.json cannot be read; remove {folder}, and publish again")
        service = f"{site.base_url}/{ITEMS}/{result.address}/{part}"
        packets = [{**each, "id": f"{service}/{each['id'].rpartition('/')[2]}"} for each in info.get("seeAlso", ())]
        infos[part] = {**info, "id": service, **({"seeAlso": packets} if packets else {})}
    return infos


def _small_files(site: Site, result: Outgoing, folder: Path) -> tuple[Entry, dict[str, bytes]]:
    """The entry of an item and all its files but the tiles, which are in ``folder``; last what marks it as finished."""
    infos = _infos(site, result, folder)
    entry = entry_of(result, infos[COLOURS])
    files = {f"{part}/{_INFO}": as_json(info) for part, info in infos.items()}
    files[RECORD] = as_json(public_record(result.sidecar))
    files[PREMIS] = premis_of(result, site.wording.organization, site.wording.names_reviewers)
    files[MANIFEST] = as_json(manifest_of(result, entry, infos, site.wording, site.base_url))
    tiles = {part: _census(folder / part) for part in _PARTS}
    files[MADE] = as_json({"stamps": _wanted_stamps(result), "tiles": tiles, "entry": entry.to_json()})
    return entry, files


def _write_files(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Write those files that differ from what is there; returns whether any did. Raises OutputError."""
    older = [(name, data) for name, data in files.items() if not _holds(folder / name, data)]
    for name, data in older:
        with writing(folder):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, data)
    return bool(older)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _wanted_stamps(result: Outgoing) -> dict[str, str]:
    """What decides the tiles of each picture, as a hash."""
    source = result.source
    scan = [_TILES, source.sha256, source.page, source.height_px, source.width_px, source.metadata.get("orientation")]
    colours = [*scan, dict(result.sidecar.settings), result.sidecar.software]
    if (label := result.label) is not None:
        scan, colours = ([*each, label.texts, label.place] for each in (scan, colours))
    return {SCAN: _stamp(scan), COLOURS: _stamp(colours)}


def _stamp(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _stamps(folder: Path) -> dict[str, str]:
    stamps = (read_json(folder / MADE) or {}).get("stamps")
    return dict(stamps) if isinstance(stamps, dict) else {}


def _entry_there(site: Site, address: str) -> Entry | None:
    try:
        return Entry.from_json((read_json(site.item(address) / MADE) or {})["entry"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _name_of(site: Site, address: str) -> str:
    entry = _entry_there(site, address)
    return address if entry is None else "/".join(filter(None, (entry.folder, entry.name)))


def _write_index(site: Site, entries: Iterable[Entry]) -> None:
    """Write search and collections, and remove the collections of folders that have no scan left."""
    files = _index(site, entries)
    _write_files(site.folder, files)
    root = site.folder / "collections"
    for path in root.glob("*.json") if root.is_dir() else ():
        if path.relative_to(site.folder).as_posix() not in files:
            remove(path)


def _index(site: Site, entries: Iterable[Entry]) -> dict[str, bytes]:
    entries = sorted(entries, key=lambda entry: (entry.folder, entry.name, entry.address))
    title = site.output.name or "colours"
    collections = collections_of(entries, site.wording, site.base_url, title)
    files = {collection_path(folder): as_json(collection) for folder, collection in collections.items()}
    search = {
        "title": collections[""]["label"],
        "statement": collections[""]["requiredStatement"]["value"],
        "words": {name: WORDS[name] for name in (SCAN, COLOURS)},
        "first": site.wording.first,
        "items": [entry.to_json() for entry in entries],
    }
    files[SEARCH] = json.dumps(search, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return files


def _page() -> dict[str, bytes]:
    """The files of the page; index.html lies at the root."""
    files = sorted(path for path in PAGE.iterdir() if path.is_file())
    return {(p.name if p.name == "index.html" else f"page/{p.name}"): p.read_bytes() for p in files}


def _write_page(site: Site) -> None:
    _write_files(site.folder, _page())
