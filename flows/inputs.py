"""Which files are scans: what an input on the command line or in a form names, and what lies in folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.manifest import SIDECAR_ENDING
from pipeline.readers import ENDINGS as SCAN_ENDINGS
from pipeline.readers import FOLDER_ENDINGS, WORLD_ENDINGS, is_folder_scan
from pipeline.writers import ENDINGS

# A store, one that is being made, and one that is being replaced.
STORE_ENDINGS = (".zarr", ".zarr.part", ".zarr.old.part")
NO_ENDING = "without"
_MOST_KINDS = 6
_OF_THE_DISK = "lost+found"  # only the system may look into it


class NoScansError(UsageError):
    """The folders and patterns are as they should be, and nothing is in them: for a nightly run that is no mistake."""


@dataclass(frozen=True)
class ScanFile:
    """A scan to colour and the place of its results below the output folder, without ending; its page, from 1.

    ``is_named``: it was asked for by its own name, not found in a folder or by a pattern.
    """

    path: Path
    stem: str
    page: int = 1
    is_named: bool = False


@dataclass(frozen=True)
class Aside:
    """What a search met and did not take, or could not look into.

    Attributes
    ----------
    not_taken : how many files of each ending were passed over in folders, the most frequent first
    in_vain : one line for each input without a scan, and for each folder that could not be listed
    """

    not_taken: Mapping[str, int] = field(default_factory=dict)
    in_vain: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """For people: what may be missing first."""
        line = not_taken_line(self.not_taken)
        return (*self.in_vain, line) if line else self.in_vain

    def to_json(self) -> dict[str, Any]:
        return {"not_taken": dict(self.not_taken), "in_vain": list(self.in_vain)}


@dataclass(frozen=True)
class Found:
    """Scans to colour, and what else was met."""

    scans: tuple[ScanFile, ...]
    aside: Aside


def not_taken_line(not_taken: Mapping[str, int]) -> str:
    """One line on :attr:`Aside.not_taken`, with a remedy; empty where nothing was left.

    >>> not_taken_line({".heic": 2, NO_ENDING: 1})
    '3 files not taken for scans by their endings: 2 .heic, 1 without; name one to have it tried'
    """
    if not not_taken:
        return ""
    count = sum(not_taken.values())
    kinds = [f"{number} {ending}" for ending, number in not_taken.items()]
    more = f", {len(kinds) - _MOST_KINDS} endings more" if len(kinds) > _MOST_KINDS else ""
    return (
        f"{count} file{'s' * (count != 1)} not taken for scans by their endings: "
        f"{', '.join(kinds[:_MOST_KINDS])}{more}; name one to have it tried"
    )


def is_result(path: Path) -> bool:
    """Whether the name is one of a picture that this project writes."""
    return path.name.endswith(tuple(ENDINGS.values()))


def _is_ours(path: Path) -> bool:
    return is_result(path) or any(part.endswith((*STORE_ENDINGS, ".iiif")) for part in path.parts)


def _stem(path: Path) -> str:
    """The name without its ending; that of a folder may have two."""
    ending = next((ending for ending in FOLDER_ENDINGS if path.name.lower().endswith(ending)), path.suffix)
    return path.as_posix().removesuffix(path.name[len(path.name) - len(ending) :]) if ending else path.as_posix()


def _is_scan_folder(path: Path) -> bool:
    """Whether a folder is a scan itself; our stores are none."""
    return path.name.lower().endswith(FOLDER_ENDINGS) and path.is_dir() and is_folder_scan(path)


def _fixed_part(pattern: Path) -> Path:
    """What stands before the first wildcard: a folder above, whatever its name, makes no result of a scan."""
    return next((parent for parent in pattern.parents if not has_magic(str(parent))), Path())


def _in_folder(folder: Path, not_taken: Counter[str], in_vain: list[str], closed: set[str]) -> list[ScanFile]:
    """The scans in a folder; the other files are counted by their endings, folders in it that cannot be listed told."""
    found: list[ScanFile] = []

    def cannot_list(error: OSError) -> None:
        closed.add(str(error.filename))
        in_vain.append(f"{error.filename}: cannot be listed ({error.strerror}), its scans are missed; check its rights")

    for parent, names, files in os.walk(folder, onerror=cannot_list):
        names[:] = sorted(name for name in names if name != _OF_THE_DISK)
        if is_output := {"runs", "thumbs"} <= set(names) and "index.html" in files:
            names[:] = [name for name in names if name not in ("runs", "thumbs")]
        scans = [name for name in names if _is_scan_folder(Path(parent, name)) and not is_result(Path(name))]
        # Hidden ones are of the system or of other programs: thumbnails, deleted files, halves that macOS leaves.
        left_out = (*STORE_ENDINGS, *FOLDER_ENDINGS, ".iiif", ".part")
        names[:] = [name for name in names if not name.endswith(left_out) and not name.startswith(".")]
        found += [ScanFile(Path(parent, name), _stem(Path(parent, name).relative_to(folder))) for name in scans]
        for name in sorted(files):
            path = Path(parent, name)
            if name[0] == "." or _is_ours(path.relative_to(folder)):
                continue
            if path.suffix.lower() in SCAN_ENDINGS:
                found.append(ScanFile(path, _stem(path.relative_to(folder))))
            elif not is_output and not name.endswith(SIDECAR_ENDING) and path.suffix.lower() not in WORLD_ENDINGS:
                not_taken[path.suffix.lower() or NO_ENDING] += 1
    if not found and str(folder) not in closed:
        in_vain.append(f"{folder}: no scans in this folder ({' '.join(SCAN_ENDINGS)}); give a folder that has some")
    return found


def _expanded(text: str) -> Path:
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{text[:100]!r}: not a possible file name ({error}); check it") from error
    return path


def find_scans(inputs: list[str]) -> Found:
    """Files, folders (searched through; sub-folders are kept in the output) and globs, each file once.

    A named file that does not exist is listed: its failure is that scan's, not the run's.

    Raises
    ------
    UsageError : nothing was given, or no folder of it can be listed. NoScansError : there is no scan in all that was
    given; where only some of it has none, that is told in :attr:`Found.aside`.
    """
    found: dict[Path, ScanFile] = {}
    not_taken: Counter[str] = Counter()
    in_vain: list[str] = []
    closed: set[str] = set()
    for text in inputs:
        path = _expanded(text)
        if _is_scan_folder(path):
            scans = [ScanFile(path, _stem(Path(path.name)), is_named=True)]
        elif path.is_dir():
            scans = _in_folder(path, not_taken, in_vain, closed)
        elif not path.exists() and has_magic(text):
            matches = sorted(Path(p) for p in glob(str(path), recursive=True))
            root = _fixed_part(path)
            scans = [
                ScanFile(p, _stem(Path(p.name)))
                for p in matches
                if (p.is_file() and not _is_ours(p.relative_to(root)))
                or (_is_scan_folder(p) and not is_result(p) and not _is_ours(p.relative_to(root).parent))
            ]
            if not scans:
                in_vain.append(f"{text}: no file matches this pattern; check it (and quote it)")
        else:
            scans = [ScanFile(path, path.stem, is_named=True)]
        for scan in scans:
            found.setdefault(scan.path.resolve(), replace(scan, path=scan.path.absolute()))
    if not found and in_vain:
        raise (UsageError if closed else NoScansError)("; ".join(in_vain))
    if not found:
        raise UsageError("no input: give scans, folders or patterns to colour")
    return Found(tuple(found.values()), Aside(dict(not_taken.most_common()), tuple(in_vain)))
