"""Which scan has which name in the output folder: no two scans share a name, and none takes that of another's result.

A scan is named like its file, without the ending. If that name belongs to another scan, such as the TIFF beside a
JPEG, the ending is kept: ``plate.jpg``. A name belongs to the scan that has results under it, else to the first scan
that claims it. Two names count as one if any file system treats them as one (`pipeline.support.names.folded`), even if
that of the output folder does not: results get copied.

A name too long for the suffixes of result names is cut, and ends in a part of its hash.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from flows.catalogue.recorder import ScanFiles
from flows.inputs import ScanFile
from pipeline.errors import ScanError, StoreError, UsageError
from pipeline.results.sidecar import SIDECAR_ENDING, Sidecar
from pipeline.results.version_names import is_of_version
from pipeline.results.versions import ResultPaths
from pipeline.store import ScanStore
from pipeline.support.files import UNFINISHED
from pipeline.support.names import folded, name_limit_bytes, path_limit_bytes

_PAGE = re.compile(r"(\.p\d{3,})?$")
_STORE_ENDING = ".zarr"
# For the version, the ending, and the suffix of a file while it is written; enough for most settings and models.
_ROOM_BYTES = 81
_LEAST_BYTES = 40
_HASH_DIGITS = 8
# Longest path within a store: versions/VERSION/chroma/records/ROW.COLUMN.json, with the suffix while it is written.
_BELOW_BYTES = 160


@dataclass(frozen=True)
class _Owner:
    """The scan that a name in the output folder belongs to; ``sha256`` is empty if it has no results yet."""

    path: str
    sha256: str = ""


class Names:
    """The names in one output folder, as the scans of a run claim them; ``read`` reads sidecars."""

    def __init__(self, output: Path, files: ScanFiles, read: Callable[[Path], Sidecar | None] = Sidecar.find) -> None:
        self._output = output
        self._files = files
        self._read = read
        self._most_bytes = max(_LEAST_BYTES, name_limit_bytes(output) - _ROOM_BYTES)
        # Claims of this run: folded name -> exact name -> path of the scan.
        self._claimed: dict[str, dict[str, str]] = {}
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def claim(self, scan: ScanFile) -> ScanFile:
        """The scan under a name of its own. Raises UsageError if every possible name is another scan's."""
        refused: UsageError | None = None
        for stem in (scan.stem, _with_ending(scan)):
            found, other = self._free(scan, stem)
            if found is not None:
                self._claimed.setdefault(folded(found), {})[found] = str(scan.path)
                return replace(scan, stem=found)
            refused = refused or _refusal(scan, stem, other)
            if Path(other[1]).suffix == scan.path.suffix:
                break
        assert refused is not None
        raise refused

    def _free(self, scan: ScanFile, stem: str) -> tuple[str | None, tuple[str, str]]:
        """The name that the scan may take for ``stem``; or None, with the name and path of the current owner."""
        present = self._present(stem)
        if self._is_long(stem) and not self._is_own(scan, stem, present):
            stem = _shortened(stem, self._most_bytes)
            present = self._present(stem)
        claimed = self._claimed.get(folded(stem), {})
        if claimed.get(stem, str(scan.path)) != str(scan.path):
            return None, (stem, claimed[stem])
        if self._is_own(scan, stem, present):
            return stem, ("", "")
        for name, path in claimed.items():
            if path != str(scan.path):
                return None, (name, path)
        for name, owner in present.items():
            if not self._is_of(scan, owner):
                return None, (name, owner.path)
        # A file whose name changed only in case or Unicode form keeps its results.
        return next(iter(present), stem), ("", "")

    def _is_long(self, stem: str) -> bool:
        # A name that looks like another scan's version is not available either.
        return len(os.fsencode(Path(stem).name)) > self._most_bytes or is_of_version(stem)

    def _is_own(self, scan: ScanFile, stem: str, present: dict[str, _Owner]) -> bool:
        return stem in present and self._is_of(scan, present[stem])

    def _is_of(self, scan: ScanFile, owner: _Owner) -> bool:
        return owner.path in (str(scan.path), scan.origin or None) or self._is_copy(scan, owner)

    def _is_copy(self, scan: ScanFile, owner: _Owner) -> bool:
        """True if the results were made from a file with the same bytes: it was moved, or lies in two places."""
        if not owner.sha256:
            return False
        try:
            source = self._files.known(scan.path, scan.page) or self._files.source_of(scan.path, scan.page)
        except ScanError:
            return False
        return source.sha256 == owner.sha256

    def _present(self, stem: str) -> dict[str, _Owner]:
        """The existing results under this name, in any spelling, with their owners."""
        parts = folded(stem).split("/")
        folders = [self._output]
        for part in parts[:-1]:
            folders = [folder / name for folder in folders for name in self._names_in(folder).get(part, ())]
        found: dict[str, _Owner] = {}
        for folder in folders:
            names = self._names_in(folder)
            each = {name for ending in (SIDECAR_ENDING, _STORE_ENDING) for name in _results(names, parts[-1], ending)}
            below = "" if folder is self._output else f"{folder.relative_to(self._output).as_posix()}/"
            for name in sorted(each):
                there = below + name
                if (owner := _owner(self._output, there, self._read)) is not None:
                    found[there] = owner
        return found

    def _names_in(self, folder: Path) -> dict[str, list[str]]:
        """The entries of a folder, by folded name; listed once, at the first request."""
        if folder not in self._listed:
            names: dict[str, list[str]] = {}
            try:
                for name in os.listdir(folder):  # noqa: PTH208
                    names.setdefault(folded(name), []).append(name)
            except OSError:
                pass  # does not exist yet, or is not a folder
            self._listed[folder] = names
        return self._listed[folder]


def _results(names: dict[str, list[str]], name: str, ending: str) -> Iterator[str]:
    for found in names.get(folded(name + ending), ()):
        if found.endswith(ending):
            yield found.removesuffix(ending)


def _refusal(scan: ScanFile, stem: str, other: tuple[str, str]) -> UsageError:
    name, path = other
    if name != stem and folded(name) == folded(stem):
        return UsageError(
            f"{scan.path}: would overwrite the result of {path} where a drive does not tell capitals or ways to write "
            "a letter apart; rename one of them, or give it another --output"
        )
    above = os.path.commonpath([scan.path.parent, Path(path).parent]) if Path(path).is_absolute() else ""
    is_beside = scan.path.parent == Path(path).parent
    wider = f"give {above}, which keeps the folders in the names, or " if len(Path(above).parts) > 1 else ""
    return UsageError(
        f"{scan.path}: would overwrite the result of {path}; {'' if is_beside else wider}rename it or give it another "
        "--output"
    )


def _with_ending(scan: ScanFile) -> str:
    """``plate`` to ``plate.jpg``, and ``plate.p002`` to ``plate.gif.p002``."""
    return _PAGE.sub(lambda page: scan.path.suffix + page.group(), scan.stem, count=1)


def _shortened(stem: str, most_bytes: int) -> str:
    """The name cut to ``most_bytes``, with a part of its hash at the end; a page number stays.

    >>> _shortened("box/" + 30 * "a" + ".p001", 20)
    'box/aaaaaa~3a54fc0c.p001'
    """
    parent, slash, name = stem.rpartition("/")
    page = _PAGE.search(name)
    number = page.group() if page else ""
    base = name.removesuffix(number)
    digest = hashlib.sha256(os.fsencode(base)).hexdigest()[:_HASH_DIGITS]
    room = max(0, most_bytes - len(number) - len(digest) - 1)
    return f"{parent}{slash}{os.fsencode(base)[:room].decode('utf-8', 'ignore')}~{digest}{number}"


def check_lengths(scan: ScanFile, paths: ResultPaths, version: str, formats: Iterable[str]) -> None:
    """Check that the output drive can hold the names of all files made from a scan. Raises UsageError."""
    folder, made = paths.store.parent, paths.of_version(version)
    names = [
        f"{made.sidecar.name}{UNFINISHED}",
        f"{paths.store.name}.old.part",
        *(f"{made.picture(name).name}.part" for name in formats),
    ]
    longest = max((*(os.fsencode(name) for name in names), *(os.fsencode(part) for part in folder.parts)), key=len)
    limit = name_limit_bytes(folder)
    if len(longest) > limit:
        raise UsageError(
            f"{scan.path}: a name among its results would have {len(longest)} bytes, and the drive of {folder} takes "
            f"{limit}, so nothing was begun; rename it, or give an --output on another drive"
        )
    whole, limit = len(os.fsencode(folder)) + 1 + len(longest) + _BELOW_BYTES, path_limit_bytes(folder)
    if whole > limit:
        raise UsageError(
            f"{scan.path}: a path among its results would have {whole} bytes, and this system takes {limit}, so "
            "nothing was begun; give an --output with a shorter path"
        )


def _owner(output: Path, stem: str, read: Callable[[Path], Sidecar | None]) -> _Owner | None:
    paths = ResultPaths.of(output, stem)
    sidecar = read(paths.sidecar)
    if sidecar is not None and sidecar.source is not None and "path" not in sidecar.source.unwritten:
        return _Owner(sidecar.source.path, sidecar.source.sha256)
    if not paths.store.exists():
        return None
    try:
        found = ScanStore.open(paths.store).source
    except StoreError:
        return None
    return _Owner(found.path, found.sha256) if found.path else None
