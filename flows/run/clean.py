"""What of an output folder may go without losing a result: left-overs, old versions, stores of finished scans.

Nothing is found that a run may be using: the caller holds the folder's lock, and the temporary folders of runs into
other folders count only when no process uses them. Nothing is found either whose loss could not be made good: an
interrupted version that the same command goes on with stays, and so does a store whose scan file is gone or changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from flows.catalogue.database import DAMAGED, FILE, Catalogue
from flows.run.reprocess_plan import store_stems
from flows.run.temporary_folder import PREFIX
from pipeline.endings import UNFINISHED as UNFINISHED_ENDINGS
from pipeline.errors import StoreError
from pipeline.ingest import settle_store
from pipeline.results.sidecar import SIDECAR_ENDING, Sidecar, version_of
from pipeline.results.versions import ResultPaths, has_recorded_size, remove_version
from pipeline.store import ScanStore, is_store
from pipeline.support.files import remove, size_bytes, tree_sha256, walk, writing

Kind = Literal["left-over", "version", "store"]
LEFT_OVER: Kind = "left-over"
VERSION: Kind = "version"
STORE: Kind = "store"
_STORE = ".zarr"
_NEW_STORE, _OLD_STORE = f"{_STORE}.part", f"{_STORE}.old.part"
# As they are written beside their places: pipeline.support.files, pipeline.results.credentials,
# flows.catalogue.database, flows.run.jobs.
_PARTS = re.compile(
    rf".+\.(json|html|jpg|png|color\.tif|c2pa)\.[0-9a-f]{{8}}\.part|{re.escape(FILE)}\.[0-9a-f]{{32}}\.part(-journal)?"
    rf"|\.colorize-archive\.part|{re.escape(DAMAGED)}(-wal|-shm|-journal)?"
)
_PARTS_OF_STORES = (".partial", ".part")
# Such a server writes there every few seconds; it may be in another container that shares the folder.
_QUIET_SECONDS = 3600.0


@dataclass(frozen=True)
class Removable:
    """Something that may go.

    Attributes
    ----------
    name : path for people, relative to the output folder where it is below it
    path : the file or folder; of a version its sidecar
    bytes : what removing it frees
    """

    kind: Kind
    name: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class Kept:
    """A store or version that stays, and why."""

    kind: Kind
    name: str
    reason: str


Finding = Removable | Kept


def find_removable(output: Path, catalogue: Catalogue, kinds: Collection[Kind], keep: int = 1) -> list[Finding]:
    """All that may go, and all of the same ``kinds`` that has a reason to stay.

    Parameters
    ----------
    output : the folder of all results, which the caller has locked
    keep : how many versions of each scan stay, the current one included

    Raises
    ------
    OSError : a file vanished, or cannot be looked at
    """
    found: list[Finding] = []
    if LEFT_OVER in kinds:
        found += _left_overs(output)
    known = {(version.stem, version.version) for version in catalogue.versions()}
    for stem in sorted(_stems(output)):
        paths = ResultPaths.of(output, stem)
        gone: set[str] = set()
        if VERSION in kinds:
            old = list(_old_versions(stem, paths, known, keep))
            gone = {str(version_of(each.path)) for each in old if isinstance(each, Removable)}
            found += old
        if STORE in kinds and paths.store.is_dir():
            found.append(_store(stem, paths, catalogue, gone))
    return found


def clear(output: Path, catalogue: Catalogue, removables: Iterable[Removable]) -> None:
    """Remove what :func:`find_removable` found. If it is stopped, the next call goes on. Raises OutputError."""
    changed: set[str] = set()
    for each in removables:
        match each.kind:
            case "left-over":
                _remove_left_over(each.path)
            case "version":
                changed.add(_remove_version(output, each))
            case "store":
                part = each.path.with_name(f"{each.path.name}.part")
                with writing(each.path):
                    os.replace(each.path, part)  # a store that is half gone would look damaged
                    remove(part)
    for stem in sorted(changed):
        catalogue.look_again(stem)


def _stems(output: Path) -> Iterator[str]:
    """Every scan with a store or a current result."""
    stems = set(store_stems(output))
    for parent, folders, names in walk(output):
        folders[:] = [name for name in folders if not name.endswith((_STORE, _NEW_STORE, _OLD_STORE))]
        for name in names:
            if name.endswith(SIDECAR_ENDING):
                sidecar = Sidecar.find(parent / name)
                stem = name.removesuffix(SIDECAR_ENDING)
                if sidecar is not None and sidecar.version and not stem.endswith(f".{sidecar.version}"):
                    stems.add((parent.relative_to(output) / stem).as_posix())
    yield from stems


def _left_overs(output: Path) -> Iterator[Removable]:
    """What stopped writes left below the output folder, and the temporary folders of killed runs."""
    stores: set[Path] = set()
    for parent, folders, names in walk(output):
        for name in (*folders, *names):
            path = parent / name
            if name.endswith(UNFINISHED_ENDINGS) or (name in names and _PARTS.fullmatch(name)):
                yield _removable(LEFT_OVER, output, path)
            elif name in folders and name.endswith((_NEW_STORE, _OLD_STORE)) and is_store(path):
                # Of the two stores of a stopped exchange one is whole: settle_store knows which.
                store = path.with_name(name.removesuffix(_OLD_STORE).removesuffix(_NEW_STORE) + _STORE)
                if store.exists() or not name.endswith(_OLD_STORE):
                    yield _removable(LEFT_OVER, output, path)
            elif name in folders and name.endswith(_STORE) and is_store(path):
                stores.add(path)
        folders[:] = [name for name in folders if not _is_ours(parent / name)]
    for store in sorted(stores):
        yield from _in_store(output, store)
    for folder in _of_killed_runs([output, Path(tempfile.gettempdir())]):
        yield _removable(LEFT_OVER, output, folder)


def _is_ours(folder: Path) -> bool:
    return folder.name.endswith((_STORE, _NEW_STORE, _OLD_STORE, *UNFINISHED_ENDINGS)) or (
        folder.name.startswith(PREFIX) and folder.is_dir()
    )


def _in_store(output: Path, store: Path) -> Iterator[Removable]:
    """Unfinished files of a store, and versions whose removal was stopped."""
    halves = [path for path in (store / "versions").glob("*") if path.is_dir() and not (path / "zarr.json").exists()]
    for half in sorted(halves):
        yield _removable(LEFT_OVER, output, half)
    for path in sorted(store.rglob("*")):
        if path.suffix in _PARTS_OF_STORES and path.is_file() and not any(h in path.parents for h in halves):
            yield _removable(LEFT_OVER, output, path)


def _of_killed_runs(places: Iterable[Path]) -> Iterator[Path]:
    """Folders of the servers that runs of release 0.6 started and no process uses; of this user only."""
    found = sorted(
        path
        for place in set(places)
        for path in place.glob(f"{PREFIX}*")
        if path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.getuid()
    )
    if not found:
        return
    used = set(_folders_in_use())
    for path in found:
        newest = max(each.lstat().st_mtime for each in (path, *path.rglob("*")))
        if str(path) not in used and time.time() - newest > _QUIET_SECONDS:
            yield path


def _folders_in_use() -> Iterator[str]:
    """Working folders and Prefect homes of this user's processes."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            yield process.cwd()
            yield process.environ().get("PREFECT_HOME", "")


def _old_versions(stem: str, paths: ResultPaths, known: Collection[tuple[str, str]], keep: int) -> Iterator[Finding]:
    """Versions that are not current, the newest ``keep`` - 1 left out."""
    current = Sidecar.find(paths.sidecar)
    if current is None or current.version is None:
        return
    told = [(Sidecar.find(each.sidecar), each) for each in paths.all_versions()]
    dated = sorted(((s.finished, s, each) for s, each in told if s is not None), key=lambda d: d[0], reverse=True)
    needed = {made for sidecar in (current, *(s for _, s, _ in dated[: keep - 1])) for made in _made_from(sidecar)}
    for _, sidecar, each in dated[keep - 1 :]:
        version, name = str(sidecar.version), f"{stem} {sidecar.version}"
        if version in needed:
            yield Kept(VERSION, name, "a version that stays was made from it")
        elif (stem, version) not in known:
            yield Kept(VERSION, name, "it was finished and not yet published: run the same command again")
        else:
            pictures = [each.picture(form) for form in sidecar.pictures]
            parts = [each.sidecar, *pictures, paths.store / "versions" / version]
            yield Removable(VERSION, name, each.sidecar, sum(size_bytes(path) for path in parts if path.exists()))


def _made_from(sidecar: Sidecar) -> set[str]:
    """The versions whose colours were graded, or corrected by hints."""
    return {sidecar.spec.graded_from, sidecar.spec.hints_from} - {""} if sidecar.spec else set()


def _store(stem: str, paths: ResultPaths, catalogue: Catalogue, gone: Collection[str]) -> Finding:
    """The store of a scan, or why it stays."""
    name = f"{stem}{_STORE}"
    if paths.store.is_symlink():
        return Kept(STORE, name, "it is a link")
    try:
        store = ScanStore.open(paths.store)
    except StoreError:
        return Kept(STORE, name, "it cannot be read: the next run makes it anew")
    if reason := _reason_to_stay(store, paths, catalogue):
        return Kept(STORE, name, reason)
    already = sum(size_bytes(paths.store / "versions" / v) for v in gone if (paths.store / "versions" / v).exists())
    return Removable(STORE, name, paths.store, size_bytes(paths.store) - already)


def _reason_to_stay(store: ScanStore, paths: ResultPaths, catalogue: Catalogue) -> str:
    """Why removing the store would lose something that cannot be had again; empty if it would not."""
    sidecar = Sidecar.find(paths.sidecar)
    if sidecar is None or sidecar.whole_source is None or not sidecar.pictures:
        return "its scan has no finished result"
    if not sidecar.is_of(store.source.sha256):
        return "it is of other bytes than the result"
    if not all(has_recorded_size(paths.picture(form), each) for form, each in sidecar.pictures.items()):
        return "a picture of the result is missing or not as it was written"
    pictured = {sidecar.version, *(version_of(each.sidecar) for each in paths.all_versions())}
    if set(store.version_names()) - pictured:
        return "it holds work that a run or reprocess goes on with"
    scan = Path(sidecar.whole_source.path)
    with contextlib.suppress(OSError):
        if (catalogue.sha256_of(scan) or tree_sha256(scan)) == store.source.sha256:
            return ""
    return "the scan file is gone or has changed, so this is its only copy"


def _remove_left_over(path: Path) -> None:
    if path.name.endswith((_NEW_STORE, _OLD_STORE)):
        settle_store(path.with_name(path.name.removesuffix(_OLD_STORE).removesuffix(_NEW_STORE) + _STORE))
        return
    with writing(path):
        remove(path)


def _remove_version(output: Path, each: Removable) -> str:
    """Remove a version's pictures, sidecar and colours; returns the scan's stem."""
    version = str(version_of(each.path))
    name = each.path.name.removesuffix(f".{version}{SIDECAR_ENDING}")
    paths = ResultPaths.of(each.path.parent, name)
    remove_version(paths, version)
    with contextlib.suppress(StoreError):
        ScanStore.open(paths.store, writable=True).remove_version(version)
    return (each.path.parent.relative_to(output) / name).as_posix()


def _removable(kind: Kind, output: Path, path: Path) -> Removable:
    name = path.relative_to(output).as_posix() if path.is_relative_to(output) else str(path)
    return Removable(kind, name, path, size_bytes(path))


def to_json(found: Iterable[Finding]) -> dict[str, Any]:
    """What was found, by name, for scripts."""
    every = list(found)
    return {
        "removable": [
            {"kind": each.kind, "name": each.name, "bytes": each.bytes} for each in every if isinstance(each, Removable)
        ],
        "kept": [vars(each) for each in every if isinstance(each, Kept)],
    }
