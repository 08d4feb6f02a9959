"""What results say of the objects that they were made from, so that scans that have not changed are not fetched.

A sidecar's ``source`` has an ``object`` then: etag, size and time of the object, and how many pages it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.catalogue.recorder import ScanFiles
from flows.objects.layout import files_below, of_scan
from flows.objects.search import ScanObjects
from pipeline.errors import ScanNotFoundError
from pipeline.results.sidecar import Sidecar
from pipeline.store import Source
from pipeline.support.files import read_json, write_json

_OBJECT = "object"


@dataclass(frozen=True)
class _Known:
    etag: str
    bytes: int
    pages: int
    sha256: str


class KnownObjects(ScanFiles):
    """Hashes and page counts of scans that are not here, from the sidecars below ``output``; of files, by ``files``."""

    def __init__(self, output: Path, scans: Iterable[tuple[Path, ScanObjects]], files: ScanFiles) -> None:
        super().__init__()
        self._scans, self._files = dict(scans), files
        self._by_address: dict[tuple[str, int], _Known] = {}
        self._first: dict[str, _Known] = {}
        self.stems: dict[str, set[str]] = {}
        for path in files_below(output) if output.is_dir() else ():
            if (of := of_scan(path)) is not None and of.is_sidecar and of.is_current:
                self._note(of.stem, read_json(output / path) or {})

    def _note(self, stem: str, sidecar: Mapping[str, Any]) -> None:
        try:
            source, told = sidecar["source"], sidecar["source"][_OBJECT]
            known = _Known(str(told["etag"]), int(told["bytes"]), int(told["pages"]), str(source["sha256"]))
            self._by_address[str(source["path"]), int(source["page"])] = known
            self._first.setdefault(str(source["path"]), known)
            self.stems.setdefault(str(source["path"]), set()).add(stem)
        except (KeyError, TypeError, ValueError):
            pass  # of an earlier release, or of a file

    def _of(self, path: Path, page: int | None = None) -> _Known | None:
        scan = self._scans.get(path)
        if scan is None:
            return None
        address = str(scan.address)
        known = self._first.get(address) if page is None else self._by_address.get((address, page))
        return known if known and (known.etag, known.bytes) == (scan.etag, scan.bytes) else None

    def has_count(self, path: Path) -> bool:
        if path not in self._scans:
            return self._files.has_count(path)
        known = self._of(path)
        return known is not None and known.pages > 0

    def page_count(self, path: Path, salvage: bool = False) -> int:
        if path not in self._scans:
            return self._files.page_count(path, salvage)
        known = self._of(path)
        if known is None:
            raise ScanNotFoundError(f"{path}: not fetched yet")
        return known.pages

    def known(self, path: Path, page: int) -> Source | None:
        if path not in self._scans:
            return self._files.known(path, page)
        known, scan = self._of(path, page), self._scans.get(path)
        if known is None or scan is None:
            return None
        return Source(path.name, known.bytes, known.sha256, str(scan.address), page)

    def source_of(self, path: Path, page: int) -> Source:
        if path not in self._scans:
            return self._files.source_of(path, page)
        if (known := self.known(path, page)) is None:
            raise ScanNotFoundError(f"{path}: not fetched yet")
        return known


def note_object(sidecar: Path, scan: ScanObjects, sha256: str, pages: int) -> None:
    """Write into a sidecar which object the scan came from, if it is of these bytes. Raises OutputError."""
    values, found = read_json(sidecar), Sidecar.find(sidecar)
    if values is None or found is None or not found.is_of(sha256):
        return
    told = {"etag": scan.etag, "bytes": scan.bytes, "modified_ns": scan.modified_ns, "pages": pages}
    source = {**values["source"], "path": str(scan.address), _OBJECT: told}
    if source != values["source"]:
        write_json(sidecar, {**values, "source": source})
