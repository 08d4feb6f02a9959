"""Where the results of a run go: a folder, or a bucket with a part of it mirrored in the work folder.

Sidecars, records and thumbnails are on both sides, of large thumbnails only the heads, by which the contact sheet knows
them. Stores and pictures are here only while a scan is worked on: they
are brought when its run begins, and are put, and removed here, when it ends. A sidecar is put last, so whoever stops
this leaves a result as it was, or a result whose sidecar does not fit and that the next run puts again: its store and
pictures are still here then.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from flows.objects.bucket import AT_ONCE, Address, Bucket, BucketError, NoObjectError, ObjectInfo, is_safe
from flows.objects.layout import files_below, is_known, is_large_thumbnail, is_small, is_told_here, of_scan
from flows.run.policy_gate import PUBLIC_FORMATS
from flows.sheet.thumbnails import HEAD_BYTES
from pipeline.endings import FORMATS as ENDINGS
from pipeline.results.credentials import CREDENTIAL_ENDING
from pipeline.results.sidecar import PictureRecord, Sidecar
from pipeline.results.versions import has_recorded_size
from pipeline.support.files import read_json, remove, tree_sha256, write_json

_PROBE = ".colorize-archive.part"
_PUBLIC = tuple(ENDINGS[name] for name in PUBLIC_FORMATS)
_LEDGER, _INCOMING = "ledger.json", "incoming.json"


class Place(Protocol):
    """Where results go."""

    @property
    def folder(self) -> Path:
        """The folder in which runs work."""
        ...

    def takes(self, stem: str) -> bool:
        """True if results may have that name there."""
        ...

    def begin(self) -> None:
        """Bring what runs need to know."""
        ...

    def is_there(self, picture: Path, record: PictureRecord) -> bool:
        """True if the picture of a sidecar is there, whole."""
        ...

    @property
    def stems(self) -> set[str]:
        """Names of the scans that something is there of."""
        ...

    @property
    def published(self) -> set[str]:
        """Names of the scans of which pictures for others are there, and not here."""
        ...

    def check_out(self, stems: Iterable[str]) -> None:
        """Bring everything that is there of scans."""
        ...

    def commit(self, stem: str) -> None:
        """Put the results of a scan. Raises OutputError."""
        ...

    def end_part(self) -> None:
        """Put records and the like."""
        ...

    def told(self, text: str) -> str:
        """A text for people, with the addresses of files of the folder."""
        ...


@dataclass(frozen=True)
class Folder:
    """Results that stay in a folder."""

    folder: Path
    stems: set[str] = field(default_factory=set)
    published: set[str] = field(default_factory=set)

    def takes(self, stem: str) -> bool:
        return True

    def begin(self) -> None:
        pass

    def is_there(self, picture: Path, record: PictureRecord) -> bool:
        return has_recorded_size(picture, record)

    def check_out(self, stems: Iterable[str]) -> None:
        pass

    def commit(self, stem: str) -> None:
        pass

    def end_part(self) -> None:
        pass

    def told(self, text: str) -> str:
        return text


class Mirror:
    """Results in a bucket, below an address; ``folder`` mirrors a part of them.

    Parameters
    ----------
    here : the work folder of this output, which is locked; it keeps which files are known to be the same on both sides
    local : paths of this machine, and the addresses that take their places in what is put
    """

    def __init__(self, address: Address, here: Path, local: Collection[tuple[str, str]] = ()) -> None:
        self.folder = here / "out"
        self._address, self._bucket, self._where = address, Bucket(address.bucket), str(address).rstrip("/")
        self._local = (*local, (str(self.folder), self._where))
        self._ledger_path, self._incoming = here / _LEDGER, here / _INCOMING
        self._there: dict[str, ObjectInfo] = {}
        self._by_stem: dict[str, set[str]] = defaultdict(set)
        self._sizes: dict[str, int] = defaultdict(int)
        self._begun: set[str] = set()
        # By path: the etag, and size and time of the file here when both were the same.
        self._ledger: dict[str, tuple[str, int, int]] = {}

    def takes(self, stem: str) -> bool:
        return is_safe(stem)

    def begin(self) -> None:
        """List the bucket, and bring the small files that are new or other there. Raises BucketError."""
        self._bucket.check_writable(self._key(_PROBE))
        self._ledger = {path: tuple(each) for path, each in (read_json(self._ledger_path) or {}).items()}
        for stem in (read_json(self._incoming) or {}).get("stems", ()):
            self._drop(stem)
        remove(self._incoming)
        start = f"{self._address.key}/" if self._address.key else ""
        for found in self._bucket.list(self._address.key):
            path = found.key.removeprefix(start)
            if is_safe(path):
                self._note(path, found)
        self._begun = {of.stem for path in files_below(self.folder) if (of := of_scan(path)) and not of.is_sidecar}
        self._forget_outrun()
        self._remove_gone()
        wanted = [path for path in self._there if is_known(path) and self._is_other(path)]
        self._fetch(path for path in wanted if self._stem(path) not in self._begun)
        self._save()

    def is_there(self, picture: Path, record: PictureRecord) -> bool:
        path = picture.relative_to(self.folder).as_posix()
        found = of_scan(path)
        return found is not None and found.stem not in self._begun and self._sizes.get(path) == record.bytes

    @property
    def stems(self) -> set[str]:
        return set(self._by_stem)

    @property
    def published(self) -> set[str]:
        tops = [of_scan(top) for top, size in self._sizes.items() if size and top.endswith(_PUBLIC)]
        return {of.stem for of in tops if of is not None}

    def check_out(self, stems: Iterable[str]) -> None:
        new = sorted(set(stems) - self._begun)
        if not new:
            return
        # A half of a store would be taken for one that a run left.
        write_json(self._incoming, {"stems": new})
        for stem in new:
            self._begun.add(stem)
            self._fetch(path for path in self._by_stem.get(stem, ()) if not path.endswith(".part"))
        remove(self._incoming)

    def commit(self, stem: str) -> None:
        files = sorted(self._files_of(stem))
        self._check(stem, files)
        changed = [path for path in files if self._differs(path)]
        is_last = {
            path: (of := of_scan(path)) is not None and of.is_current and of.ending != ".zarr" for path in changed
        }
        sidecars = [path for path in changed if path.endswith(".json") and is_small(path)]
        for part in (
            [path for path in changed if not is_last[path] and path not in sidecars],
            [path for path in sidecars if not is_last[path]],
            [path for path in changed if is_last[path] and path not in sidecars],
            [path for path in sidecars if is_last[path]],
        ):
            self._put(part)
        # What was never brought is not here, and is no less a result.
        gone = self._by_stem.get(stem, set()) - set(files) if stem in self._begun else set[str]()
        self._bucket.remove(self._key(path) for path in sorted(gone))
        for path in gone:
            self._forget(path)
        # Half of what is here, after a kill, would be taken for all that there is to be of the scan.
        write_json(self._incoming, {"stems": [stem]})
        for top in {of.top for path in files if (of := of_scan(path)) and not of.is_sidecar}:
            remove(self.folder / top)
        remove(self._incoming)
        for path in files:
            if not is_small(path):
                self._ledger.pop(path, None)
        self._begun.discard(stem)

    def end_part(self) -> None:
        # A sidecar that changed without its scan has had credentials beside its pictures withdrawn.
        small = [path for path in files_below(self.folder) if is_small(path) and self._stem(path) not in self._begun]
        changed = [path for path in small if self._differs(path)]
        self._put(changed)
        withdrawn = [path for path in self._there if path.endswith(CREDENTIAL_ENDING) and not self._is_here(path)]
        self._bucket.remove(map(self._key, withdrawn))
        for path in withdrawn:
            self._forget(path)
        for path in filter(is_large_thumbnail, changed):
            os.truncate(self.folder / path, min(HEAD_BYTES, self._state(path)[0]))
            self._ledger[path] = (self._ledger[path][0], *self._state(path))
        self._save()

    def told(self, text: str) -> str:
        return text.replace(str(self.folder), self._where)

    def _key(self, path: str) -> str:
        return f"{self._address.key}/{path}" if self._address.key else path

    @staticmethod
    def _stem(path: str) -> str | None:
        found = of_scan(path)
        return found.stem if found else None

    def _note(self, path: str, found: ObjectInfo) -> None:
        self._there[path] = found
        if (of := of_scan(path)) is not None:
            self._by_stem[of.stem].add(path)
            if of.is_picture:
                self._sizes[of.top] += found.bytes

    def _forget(self, path: str) -> None:
        found = self._there.pop(path, None)
        self._ledger.pop(path, None)
        if found is not None and (of := of_scan(path)) is not None:
            self._by_stem[of.stem].discard(path)
            self._sizes[of.top] -= found.bytes

    def _is_here(self, path: str) -> bool:
        return (self.folder / path).exists()

    def _is_other(self, path: str) -> bool:
        """True if an object is not what was brought or put last, or is not here."""
        known = self._ledger.get(path)
        return known is None or known[0] != self._there[path].etag or not self._is_here(path)

    def _differs(self, path: str) -> bool:
        """True if a file is not what was brought or put last."""
        known, found = self._ledger.get(path), self._there.get(path)
        return known is None or found is None or found.etag != known[0] or known[1:] != self._state(path)

    def _state(self, path: str) -> tuple[int, int]:
        status = (self.folder / path).stat()
        return status.st_size, status.st_mtime_ns

    def _forget_outrun(self) -> None:
        """Remove what is begun here of scans whose result was replaced there since: by another machine, or just now."""
        for stem in list(self._begun):
            sidecars = [path for path in self._by_stem.get(stem, ()) if is_small(path) and of_scan(path).is_current]  # type: ignore[union-attr]
            if any(path not in self._ledger or self._ledger[path][0] != self._there[path].etag for path in sidecars):
                self._drop(stem)
                self._begun.discard(stem)

    def _drop(self, stem: str) -> None:
        """Remove everything of a scan that is here."""
        for path in self._files_of(stem):
            remove(self.folder / of_scan(path).top)  # type: ignore[union-attr]

    def _remove_gone(self) -> None:
        """Remove sidecars here whose result is not there any more, and other files that were there and are not now."""
        for path in list(files_below(self.folder)):
            stem = self._stem(path)
            is_ours = path in self._ledger if stem is None else stem not in self._begun
            if is_ours and path not in self._there:
                remove(self.folder / path)
                self._ledger.pop(path, None)

    def _files_of(self, stem: str) -> list[str]:
        """Paths of all files of a scan here, but those being written."""
        parent = (self.folder / stem).parent
        tops = [path for path in parent.iterdir() if path.name.startswith(Path(stem).name)] if parent.is_dir() else []
        found: list[str] = []
        for top in tops:
            start = top.relative_to(self.folder).as_posix()
            paths = [f"{start}/{each}" for each in files_below(top)] if top.is_dir() else [start]
            found += [
                path for path in paths if (of := of_scan(path)) and of.stem == stem and not of.top.endswith(".part")
            ]
        return found

    def _check(self, stem: str, files: list[str]) -> None:
        """Raises BucketError if a current picture is not what its sidecar says."""
        sidecar = Sidecar.find(self.folder / f"{stem}.color.json")
        for record in sidecar.pictures.values() if sidecar else ():
            path = (self.folder / stem).with_name(record.file)
            if path.exists() and tree_sha256(path) != record.sha256:
                remove(path)  # the next run writes it again
                raise BucketError(f"{path}: is not what was written, and was not put; run again")

    def _put(self, paths: Iterable[str]) -> None:
        every = list(paths)
        states = {path: self._state(path) for path in every}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            etags = list(pool.map(lambda path: self._bucket.put(self._key(path), self._content(path)), every))
        for path, etag in zip(every, etags, strict=True):
            self._forget(path)
            self._note(path, ObjectInfo(self._key(path), etag, states[path][0], 0))
            self._ledger[path] = (etag, *states[path])

    def _content(self, path: str) -> Path | bytes:
        """What to put for a file: itself, or its text with addresses for paths of this machine."""
        if not is_told_here(path):
            return self.folder / path
        text = (self.folder / path).read_bytes()
        for local, address in self._local:
            for said in (f"file://{quote(local)}", f"file://{local}", local):
                text = text.replace(os.fsencode(said), address.encode())
        return text

    def _fetch(self, paths: Iterable[str]) -> None:
        def fetch(path: str) -> None:
            try:
                if is_large_thumbnail(path):
                    self._bucket.fetch_head(self._there[path], self.folder / path, HEAD_BYTES)
                    etag = self._there[path].etag
                else:
                    etag = self._bucket.fetch(self._key(path), self.folder / path)
                self._ledger[path] = (etag, *self._state(path))
            except NoObjectError:
                pass  # removed since the list was made

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(fetch, list(paths)))

    def _save(self) -> None:
        write_json(self._ledger_path, {path: list(each) for path, each in sorted(self._ledger.items())})
