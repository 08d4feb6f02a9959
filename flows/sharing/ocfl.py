"""An OCFL storage root: one object a scan, whose versions keep what was packaged before.

A version has only the files that no earlier one had; what is the same is named, not copied. An object is changed by
writing its version folder beside, renaming it, and replacing the inventory last, so that a stopped run leaves the
object as it was.

References
----------
Oxford Common File Layout 1.1 (https://ocfl.io/1.1/spec/); OCFL extension 0003, hashed truncated
n-tuple trees with object ID encapsulating directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from flows.sharing.contents import Digests
from flows.sharing.outgoing import Outgoing
from pipeline.errors import StoreError, UsageError
from pipeline.support.files import read_json, remove, write_whole, writing

_ROOT, _OBJECT = "0=ocfl_1.1", "0=ocfl_object_1.1"
_LAYOUT = "0003-hash-and-id-n-tuple-storage-layout"
_TUPLE, _TUPLES = 3, 3
_INVENTORY, _SIDECAR = "inventory.json", "inventory.json.sha512"
_STAGING = ".staging"


@dataclass(frozen=True)
class StorageRoot:
    """A folder of OCFL objects."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> Self:
        """The storage root at ``path``, made if the folder is new or empty.

        Raises UsageError if the folder holds other things.
        """
        if not (path / _ROOT).is_file():
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UsageError(f"{path}: holds other things and is no OCFL 1.1 storage root; give a new --to")
            with writing(path):
                path.mkdir(parents=True, exist_ok=True)
            config = {
                "extensionName": _LAYOUT,
                "digestAlgorithm": "sha256",
                "tupleSize": _TUPLE,
                "numberOfTuples": _TUPLES,
            }
            with writing(path):
                (path / "extensions" / _LAYOUT).mkdir(parents=True)
            write_whole(path / "extensions" / _LAYOUT / "config.json", _as_json(config))
            layout = {
                "extension": _LAYOUT,
                "description": "Hashed n-tuple trees, with the identifier as the name of the object's folder",
            }
            write_whole(path / "ocfl_layout.json", _as_json(layout))
            write_whole(path / _ROOT, b"ocfl_1.1\n")
        elif (read_json(path / "ocfl_layout.json") or {}).get("extension") != _LAYOUT:
            raise UsageError(f"{path}: a storage root of another layout, objects would not be found; give another")
        return cls(path)

    def object_path(self, object_id: str) -> Path:
        """Where an object lies (extension 0003)."""
        digest = hashlib.sha256(object_id.encode()).hexdigest()
        parts = [digest[at : at + _TUPLE] for at in range(0, _TUPLE * _TUPLES, _TUPLE)]
        name = "".join(each if each.isalnum() or each in "-_" else f"%{ord(each):02x}" for each in object_id)
        return self.path.joinpath(*parts, name)

    @contextmanager
    def staged(self, result: Outgoing) -> Iterator[Path]:
        """A folder for the files of one scan, beside the storage root."""
        folder = self.path.with_name(f"{self.path.name}{_STAGING}") / result.address
        try:
            with writing(folder):
                remove(folder)
                folder.mkdir(parents=True)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _remove_empty(folder.parent)

    def put(self, result: Outgoing, staging: Path, files: Mapping[str, Digests]) -> Literal["new", "changed", "same"]:
        """Make the staged files the object's newest version, unless they are that already.

        Raises StoreError for an object whose inventory cannot be read, OutputError.
        """
        object_id = id_of(result)
        folder = self.object_path(object_id)
        before = _inventory_of(folder)
        state: dict[str, list[str]] = {}
        for path, digests in files.items():
            state.setdefault(digests.sha512, []).append(path)
        if before is not None and before["versions"][before["head"]]["state"] == state:
            return "same"
        number = 1 if before is None else int(before["head"][1:]) + 1
        head, manifest = f"v{number}", dict(before["manifest"]) if before is not None else {}
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            made = folder / f"{head}.part"
            remove(made)
            for path, digests in files.items():
                if digests.sha512 not in manifest:
                    manifest[digests.sha512] = [f"{head}/content/{path}"]
                    target = made / "content" / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(staging / path, target)
            made.mkdir(exist_ok=True)
            remove(folder / head)  # of a stopped run: the inventory does not know it
            made.rename(folder / head)
        inventory = _inventory(object_id, head, manifest, before, state)
        self._seal(folder, head, inventory)
        return "new" if before is None else "changed"

    def places(self, result: Outgoing) -> dict[str, str]:
        """Where the files of a scan's newest version lie, from the storage root, by path in the object.

        Raises StoreError for an object whose inventory cannot be read.
        """
        folder = self.object_path(id_of(result))
        inventory = _inventory_of(folder)
        if inventory is None:
            raise StoreError(f"{folder}: no object of {result.stem}; package it again")
        home, held = folder.relative_to(self.path).as_posix(), inventory["manifest"]
        state = inventory["versions"][inventory["head"]]["state"]
        return {path: f"{home}/{held[digest][0]}" for digest, paths in state.items() for path in paths}

    def _seal(self, folder: Path, head: str, inventory: bytes) -> None:
        sidecar = f"{hashlib.sha512(inventory).hexdigest()} {_INVENTORY}\n".encode()
        for place in (folder / head, folder):
            write_whole(place / _SIDECAR, sidecar)
            write_whole(place / _INVENTORY, inventory)
        if not (folder / _OBJECT).is_file():
            write_whole(folder / _OBJECT, b"ocfl_object_1.1\n")


def id_of(result: Outgoing) -> str:
    """The identifier of a scan's object: it hangs on the path of the result alone."""
    digest = hashlib.sha256(os.fsencode(result.stem)).hexdigest()
    return uuid.uuid5(uuid.NAMESPACE_OID, digest).urn


def _inventory_of(folder: Path) -> dict[str, Any] | None:
    if not (folder / _OBJECT).is_file():
        return None
    found = read_json(folder / _INVENTORY)
    data = (folder / _INVENTORY).read_bytes() if found is not None else b""
    wanted = (folder / _SIDECAR).read_text().split()[0] if (folder / _SIDECAR).is_file() else ""
    if found is None or hashlib.sha512(data).hexdigest() != wanted:
        raise StoreError(f"{folder}: its inventory is damaged, so no version can be added; restore it from a copy")
    return dict(found)


def _inventory(
    object_id: str,
    head: str,
    manifest: Mapping[str, list[str]],
    before: Mapping[str, Any] | None,
    state: Mapping[str, list[str]],
) -> bytes:
    versions = dict(before["versions"]) if before is not None else {}
    versions[head] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "state": dict(state),
        "message": "scan and its colours, packaged",
        "user": {"name": "colorize-archive"},
    }
    values = {
        "id": object_id,
        "type": "https://ocfl.io/1.1/spec/#inventory",
        "digestAlgorithm": "sha512",
        "head": head,
        "contentDirectory": "content",
        "manifest": dict(manifest),
        "versions": versions,
    }
    return _as_json(values)


def _as_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
