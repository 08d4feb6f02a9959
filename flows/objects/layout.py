"""Which objects of an output belong to which scan: its store, its pictures and sidecars, of all versions.

Everything else there is small: records of runs, thumbnails, hints, the policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.inputs import RECORDS, SHEET, STORE_ENDINGS, THUMBNAILS
from flows.sharing.wording import WORDING_FILE
from flows.sheet.thumbnails import LARGE_SIDE_PX
from pipeline.endings import FORMATS as ENDINGS
from pipeline.hints import ENDINGS as HINT_ENDINGS
from pipeline.results.credentials import CREDENTIAL_ENDING
from pipeline.results.decisions import DECISION_ENDING
from pipeline.results.policy import POLICY_FILE
from pipeline.results.sidecar import SIDECAR_ENDING
from pipeline.results.version_names import without_version

PART = ".part"
_PAGE = re.compile(r"\.p\d{3,}$")
# Of one machine: locks, the catalogue, which is made from the results, and files being written.
_LOCAL = re.compile(r"(^|/)(\.lock|catalogue\.[^/]*|\.[^/]*\.part|[^/]*\.[0-9a-f]{8}\.part|\.colorize-archive\.part)$")
_FILES = (POLICY_FILE, WORDING_FILE)
_ENDINGS = (*HINT_ENDINGS, CREDENTIAL_ENDING, DECISION_ENDING)
_PICTURES = tuple(sorted(ENDINGS.values(), key=len, reverse=True))


@dataclass(frozen=True)
class OfScan:
    """What an object is of a scan: ``stem`` is the scan's name; ``base`` is that or the name with a version.

    ``ending`` is that of a picture, of the sidecar or of a store; ``top`` the path of the file or folder it is in.
    """

    stem: str
    base: str
    ending: str
    top: str

    @property
    def is_current(self) -> bool:
        return self.stem == self.base

    @property
    def is_sidecar(self) -> bool:
        return self.ending == SIDECAR_ENDING

    @property
    def is_picture(self) -> bool:
        return self.ending in _PICTURES


def of_scan(path: str) -> OfScan | None:
    """What a path below an output is of a scan; None if it is of none.

    >>> of_scan("box/a.zarr/scan/zarr.json")
    OfScan(stem='box/a', base='box/a', ending='.zarr', top='box/a.zarr')
    >>> of_scan("thumbs/box/a.before.jpg") is None
    True
    """
    parts = path.split("/")
    for index, name in enumerate(parts):
        ending = next((each for each in (SIDECAR_ENDING, *_PICTURES, *STORE_ENDINGS) if _ends(name, each)), None)
        if ending is not None:
            top = "/".join(parts[: index + 1])
            base = top.removesuffix(PART).removesuffix(ending.removesuffix(PART))
            return OfScan(without_version(base), base, ending, top)
    return None


def _ends(name: str, ending: str) -> bool:
    return name.endswith((ending, ending + PART)) and len(name) > len(ending)


def is_small(path: str) -> bool:
    """True if a file of an output is kept on both sides: sidecars, records, thumbnails and the like."""
    found = of_scan(path)
    if found is not None:
        return found.is_sidecar and not path.endswith(PART)
    return _LOCAL.search(path) is None


def is_known(path: str) -> bool:
    """True if an object of an output is of this project, and is kept here: others may lie there, of any size."""
    if not is_small(path) or path == SHEET:
        return False
    is_below = path.startswith((f"{RECORDS}/", f"{THUMBNAILS}/"))
    return is_below or path in _FILES or path.endswith((SIDECAR_ENDING, *_ENDINGS))


def is_large_thumbnail(path: str) -> bool:
    """True if a file is a picture of the contact sheet for a closer look, of which only the head is kept here."""
    return path.startswith(f"{THUMBNAILS}/") and path.endswith(f".{LARGE_SIDE_PX}.jpg")


def is_told_here(path: str) -> bool:
    """True if a file names files of this machine, so that addresses take their places before it is put."""
    return path == SHEET or (path.startswith(f"{RECORDS}/") and path.endswith((".json", ".log")))


def stems_for(stem: str, suffix: str, there: set[str]) -> set[str]:
    """Which of the scans that are ``there`` may be the scan that would be called ``stem``, or pages of it."""
    names = {stem, stem + suffix}
    return {each for each in there if each in names or _PAGE.sub("", each) in names}


def files_below(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder, relative to it, with slashes."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix()
