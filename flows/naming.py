"""Which scan has which name in the output folder: no two scans share one, and none takes that of another's result.

A scan is named like its file, without the ending. Where that name belongs to another scan, such as the TIFF beside a
JPEG, its ending comes in: ``plate.jpg``. A name belongs to the scan that has results under it, else to the first that
lays claim to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from flows.bookkeeping import ScanFiles
from flows.inputs import ScanFile
from pipeline.errors import ScanError, StoreError, UsageError
from pipeline.manifest import ResultPaths, read_sidecar
from pipeline.store import ScanStore

_PAGE = re.compile(r"(\.p\d{3,})?$")


@dataclass(frozen=True)
class _Owner:
    """The scan of which results have a name; ``sha256`` is empty where they are yet to be made."""

    path: str
    sha256: str = ""


class Names:
    """The names in one output folder, as scans of a run lay claim to them."""

    def __init__(self, output: Path, files: ScanFiles) -> None:
        self._output = output
        self._files = files
        self._claimed: dict[str, _Owner] = {}

    def claim(self, scan: ScanFile) -> ScanFile:
        """The scan under a name of its own. Raises UsageError: there is none that would not be another scan's."""
        in_the_way = ""
        for each in (scan, replace(scan, stem=_with_ending(scan))):
            owner = self._claimed.get(each.stem) or _owner(self._output, each.stem)
            if owner is None or owner.path == str(scan.path) or self._is_copy(scan, owner):
                self._claimed[each.stem] = _Owner(str(scan.path))
                return each
            in_the_way = in_the_way or owner.path
            if Path(owner.path).suffix == scan.path.suffix:
                break
        raise UsageError(
            f"{scan.path}: would overwrite the result of {in_the_way}; rename it or give it another --output"
        )

    def _is_copy(self, scan: ScanFile, owner: _Owner) -> bool:
        """Whether the scan's file has the bytes of which the results were made: it was moved, or lies in two places."""
        if not owner.sha256:
            return False
        try:
            source = self._files.known(scan.path, scan.page) or self._files.source_of(scan.path, scan.page)
        except ScanError:
            return False
        return source.sha256 == owner.sha256


def _with_ending(scan: ScanFile) -> str:
    """``plate`` to ``plate.jpg``, and ``plate.p002`` to ``plate.gif.p002``."""
    return _PAGE.sub(lambda page: scan.path.suffix + page.group(), scan.stem, count=1)


def _owner(output: Path, stem: str) -> _Owner | None:
    paths = ResultPaths.of(output, stem)
    source = (read_sidecar(paths.sidecar) or {}).get("source")
    if isinstance(source, dict) and isinstance(path := source.get("path"), str):
        return _Owner(path, str(source.get("sha256", "")))
    if not paths.store.exists():
        return None
    try:
        found = ScanStore.open(paths.store).source
    except StoreError:
        return None
    return _Owner(found.path, found.sha256) if found.path else None
