"""Finds the scans: files that an input on the command line or in a form names, and files in folders.

The search opens only the small files that say what a folder is, and leaves nothing out silently: files and folders that
are not taken are counted, by ending or by reason. Links are followed, each folder and file once. Real files come before
links, so that no scan gets the name of a link to it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from glob import glob, has_magic
from pathlib import Path
from typing import Any, Literal

from flows.environment import is_in_utf8
from pipeline.endings import FORMAT_FOLDERS as RESULT_FOLDER_ENDINGS
from pipeline.endings import FORMATS as ENDINGS
from pipeline.endings import SCAN_FOLDERS as FOLDER_ENDINGS
from pipeline.endings import SCANS as SCAN_ENDINGS
from pipeline.endings import UNFINISHED as UNFINISHED_ENDINGS
from pipeline.endings import WORLDS as WORLD_ENDINGS
from pipeline.errors import UsageError
from pipeline.hints import ENDINGS as HINT_ENDINGS
from pipeline.results.sidecar import SIDECAR_ENDING, sidecar_of
from pipeline.store import is_store
from pipeline.support.files import open_file
from pipeline.support.names import shown

# A finished store, a store being made, and a store being replaced.
STORE_ENDINGS = (".zarr", ".zarr.part", ".zarr.old.part")
NO_ENDING = "without"
SHEET, RECORDS, THUMBNAILS = "index.html", "runs", "thumbs"
SHEET_MARK, _HEAD_BYTES = b'<meta name="generator" content="colorize-archive">', 2048
_MOST_KINDS = 6
_MOST_EXAMPLES = 3
_MOST_KEPT = 100
_OF_THE_DISK = "lost+found"  # only the system may look into it
_OF_OUTPUT = (SHEET, "catalogue.sqlite", "catalogue.damaged.sqlite")

Why = Literal["node", "circle", "again", "result", "like a result", "folder", "tiles", "hidden"]
# The line for one, the line for several, and the remedy if there is one.
_REASONS: dict[Why, tuple[str, str, str]] = {
    "node": ("pipe, socket or device passed over unopened", "pipes, sockets or devices passed over unopened", ""),
    "circle": ("link that leads in a circle", "links that lead in a circle", "remove it, or mend where it leads"),
    "again": ("link to what is taken already", "links to what is taken already", ""),
    "result": ("result of this project's not taken for a scan", "results of this project's not taken for scans", ""),
    "like a result": (
        "picture that is called like a result, without the JSON of one",
        "pictures that are called like results, without the JSON of one",
        "name one to have it coloured, or rename it",
    ),
    "tiles": (
        "folder of that ending that is neither an OME-Zarr nor ours",
        "folders of such endings that are neither OME-Zarr nor ours",
        "rename it to have it searched",
    ),
    "folder": (
        "folder that matches a pattern and is not searched",
        "folders that match and are not searched",
        "name it",
    ),
    "hidden": ("hidden file or folder passed over", "hidden files or folders passed over", "name one to have it tried"),
}


class NoScansError(UsageError):
    """The folders and patterns are valid but hold no scans, which is no mistake for a nightly run."""


@dataclass(frozen=True)
class ScanFile:
    """A scan to colour: its file, the path of its results below the output folder without ending, and its page from 1.

    ``is_named``: it was given by its own name, not found in a folder or by a pattern. ``origin`` is the address that
    the file was fetched from, which its results name; empty where the file itself was given.
    """

    path: Path
    stem: str
    page: int = 1
    is_named: bool = False
    origin: str = ""


@dataclass(frozen=True)
class PassedOver:
    """The number of files or folders passed over for one reason, and the first of their paths."""

    count: int
    paths: tuple[str, ...]

    def joined(self, other: PassedOver) -> PassedOver:
        """Those of both."""
        return PassedOver(self.count + other.count, (*self.paths, *other.paths)[:_MOST_KEPT])


@dataclass(frozen=True)
class SearchReport:
    """Files and folders that a search did not take, or could not read.

    Attributes
    ----------
    ignored_files : number of files of each ending passed over in folders, the most frequent first
    empty_inputs : one line for each input without a scan, and for each folder that could not be listed
    passed_over : files and folders passed over for a reason other than their ending, by that reason
    notes : one line for each choice of the user's that may have surprising effects
    """

    ignored_files: Mapping[str, int] = field(default_factory=dict)
    empty_inputs: tuple[str, ...] = ()
    passed_over: Mapping[Why, PassedOver] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def joined(self, other: SearchReport) -> SearchReport:
        """The report of both searches."""
        ignored = dict(self.ignored_files)
        for ending, count in other.ignored_files.items():
            ignored[ending] = ignored.get(ending, 0) + count
        return SearchReport(
            ignored,
            (*self.empty_inputs, *other.empty_inputs),
            {why: self._passed(why).joined(other._passed(why)) for why in {**self.passed_over, **other.passed_over}},
            (*self.notes, *other.notes),
        )

    def _passed(self, why: Why) -> PassedOver:
        return self.passed_over.get(why, PassedOver(0, ()))

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines for people; those about possibly missing scans come first."""
        passed = (passed_over_line(why, self.passed_over[why]) for why in _REASONS if why in self.passed_over)
        line = ignored_files_line(self.ignored_files)
        return (*self.empty_inputs, *self.notes, *passed, *((line,) if line else ()))

    def to_json(self) -> dict[str, Any]:
        passed = {why: {"count": each.count, "paths": list(each.paths)} for why, each in self.passed_over.items()}
        return {"not_taken": dict(self.ignored_files), "in_vain": list(self.empty_inputs), "passed_over": passed}


@dataclass(frozen=True)
class Found:
    """The scans to colour, and the report of everything else."""

    scans: tuple[ScanFile, ...]
    ignored: SearchReport


def ignored_files_line(ignored_files: Mapping[str, int]) -> str:
    """One line on :attr:`SearchReport.ignored_files`, with a remedy; empty if no file was ignored.

    >>> ignored_files_line({".heic": 2, NO_ENDING: 1})
    '3 files not taken for scans by their endings: 2 .heic, 1 without; name one to have it tried'
    """
    if not ignored_files:
        return ""
    count = sum(ignored_files.values())
    kinds = [f"{number} {shown(ending)}" for ending, number in ignored_files.items()]
    more = f", {len(kinds) - _MOST_KINDS} endings more" if len(kinds) > _MOST_KINDS else ""
    return (
        f"{count} file{'s' * (count != 1)} not taken for scans by their endings: "
        f"{', '.join(kinds[:_MOST_KINDS])}{more}; name one to have it tried"
    )


def passed_over_line(why: Why, passed: PassedOver) -> str:
    """One line on what was passed over for one reason: number, examples and remedy.

    >>> passed_over_line("hidden", PassedOver(1, ("/scans/.a.tif",)))
    '1 hidden file or folder passed over: /scans/.a.tif; name one to have it tried'
    """
    one, several, remedy = _REASONS[why]
    named = ", ".join(map(shown, passed.paths[:_MOST_EXAMPLES]))
    more = passed.count - min(_MOST_EXAMPLES, len(passed.paths))
    which = f"{named} and {more} more" if more else named
    return f"{passed.count} {one if passed.count == 1 else several}: {which}{f'; {remedy}' if remedy else ''}"


def is_result(path: Path) -> bool:
    """True if the file is named like a picture that this project writes."""
    return path.name.endswith(tuple(ENDINGS.values()))


def is_sheet(page: Path) -> bool:
    """True if a file is a contact sheet of this project. Raises OSError if it cannot be read."""
    with open_file(page) as stream:
        return SHEET_MARK in stream.read(_HEAD_BYTES)


def _is_told(path: Path) -> bool:
    """True if a sidecar or store beside a picture named like a result confirms that it is one."""
    sidecar = sidecar_of(path)
    if sidecar is None:
        return False
    return sidecar.is_file() or is_store(sidecar.with_name(sidecar.name.removesuffix(SIDECAR_ENDING) + ".zarr"))


def _is_result_folder(path: Path) -> bool:
    """True if a folder is a store, or a picture or tiles of ours, finished or being made."""
    if path.name.endswith(STORE_ENDINGS):
        return not path.name.endswith(".zarr") or is_store(path) or (is_result(path) and _is_told(path))
    is_called_so = path.name.endswith(RESULT_FOLDER_ENDINGS) and is_result(path)
    return path.name.endswith(UNFINISHED_ENDINGS) or (is_called_so and _is_told(path))


def _stem(path: Path) -> str:
    """The path without its ending; the ending of a folder may have two parts."""
    ending = next((ending for ending in FOLDER_ENDINGS if path.name.lower().endswith(ending)), path.suffix)
    return path.as_posix().removesuffix(path.name[len(path.name) - len(ending) :]) if ending else path.as_posix()


def _is_scan_folder(path: Path) -> bool:
    """True if a folder is itself a scan; our stores are not."""
    if not (path.name.lower().endswith(FOLDER_ENDINGS) and path.is_dir()):
        return False
    from pipeline.readers import is_folder_scan

    return is_folder_scan(path)


def _fixed_part(pattern: Path) -> Path:
    """The part before the first wildcard: a name in it never makes a scan count as a result."""
    return next((parent for parent in pattern.parents if not has_magic(str(parent))), Path())


def _expanded(text: str) -> Path:
    try:
        path = Path(text).expanduser()
        os.path.lexists(path)
        os.fsencode(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{text[:100]!r}: not a possible file name ({error}); check it") from error
    return path


@dataclass
class _Input:
    """A folder or pattern, whether it has led to any scan, and the line to print if it has not."""

    folder: Path
    line: str
    has_scans: bool = False


@dataclass(frozen=True)
class _Link:
    """A link in an input's folder, to be followed after everything else has been searched."""

    path: Path
    of: _Input
    is_folder: bool


class _Search:
    """The state of one search."""

    def __init__(self) -> None:
        self.scans: dict[str, ScanFile] = {}
        self.ignored_files: Counter[str] = Counter()
        self.closed: list[Path] = []
        self.empty_inputs: list[str] = []
        self._passed: Counter[Why] = Counter()
        self._paths: dict[Why, list[str]] = {}
        self._searched: set[tuple[int, int]] = set()
        self._links: deque[_Link] = deque()
        self._inputs: list[_Input] = []

    @property
    def passed_over(self) -> dict[Why, PassedOver]:
        return {why: PassedOver(count, tuple(self._paths[why])) for why, count in self._passed.items()}

    def pass_over(self, why: Why, path: Path) -> None:
        self._passed[why] += 1
        kept = self._paths.setdefault(why, [])
        if len(kept) < _MOST_KEPT:
            kept.append(str(path))

    def take(self, scan: ScanFile, real: str | None = None) -> bool:
        """Add a scan; False if it is known already. ``real`` is its path without links, if known."""
        real = real or os.path.realpath(scan.path)
        if real in self.scans:
            return False
        self.scans[real] = replace(scan, path=scan.path.absolute())
        return True

    def folder(self, folder: Path) -> None:
        """Search a folder given as input."""
        endings = " ".join(SCAN_ENDINGS)
        found = _Input(folder, f"{folder}: no scans in this folder ({endings}); give a folder that has some")
        self._inputs.append(found)
        self._search(folder, found)

    def finish(self) -> None:
        """Follow the links found, and report inputs without scans."""
        while self._links:
            link = self._links.popleft()
            if link.is_folder:
                self._follow(link)
            else:
                link.of.has_scans = True
                if not self.take(ScanFile(link.path, _stem(link.path.relative_to(link.of.folder)))):
                    self.pass_over("again", link.path)
        self.empty_inputs += [
            each.line for each in self._inputs if not each.has_scans and each.folder not in self.closed
        ]

    def _follow(self, link: _Link) -> None:
        try:
            status = link.path.stat()
        except OSError as error:
            self._cannot_list(link.path, error)
            return
        if (status.st_dev, status.st_ino) in self._searched:
            link.of.has_scans = True
            self.pass_over("again", link.path)
        else:
            self._search(link.path, link.of)

    def _search(self, folder: Path, of: _Input) -> None:
        """Search a folder and those below it, in each the files before the folders."""
        pending = [folder]
        while pending:
            parent = pending.pop()
            try:
                status = parent.stat()
                with os.scandir(parent) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                self._cannot_list(parent, error)
                continue
            self._searched.add((status.st_dev, status.st_ino))
            pending += reversed(list(self._look_at(parent, entries, of)))

    def _cannot_list(self, folder: Path, error: OSError) -> None:
        self.closed.append(folder)
        self.empty_inputs.append(
            f"{folder}: cannot be listed ({error.strerror}), its scans are missed; check its rights"
        )

    def _look_at(self, parent: Path, entries: list[os.DirEntry[str]], of: _Input) -> Iterator[Path]:
        """Take the scans among the entries of a folder; yields the folders to search."""
        kinds = {entry.name: _kind(entry) for entry in entries}
        is_output = _is_output(parent, kinds)
        real = os.path.realpath(parent)
        for entry in entries:
            kind, path = kinds[entry.name], Path(parent, entry.name)
            if kind in ("node", "circle"):
                self.pass_over("node" if kind == "node" else "circle", path)
            elif kind == "folder":
                if self._is_searched(path, is_output, real, of):
                    if entry.is_symlink():
                        self._links.append(_Link(path, of, is_folder=True))
                    else:
                        yield path
            elif self._is_scan(path, is_output):
                if entry.is_symlink():
                    self._links.append(_Link(path, of, is_folder=False))
                else:
                    of.has_scans = True
                    self.take(ScanFile(path, _stem(path.relative_to(of.folder))), os.path.join(real, entry.name))  # noqa: PTH118

    def _is_searched(self, path: Path, is_output: bool, real: str, of: _Input) -> bool:
        """True if a folder is to be searched; takes it if it is itself a scan."""
        # Hidden folders belong to the system or to other programs: thumbnails, deleted files.
        if path.name.startswith(".") or path.name == _OF_THE_DISK:
            self.pass_over("hidden", path)
        elif _is_result_folder(path) or (is_output and path.name in (RECORDS, THUMBNAILS)):
            self.pass_over("result", path)
        elif _is_scan_folder(path):
            if is_result(path):
                self.pass_over("like a result", path)
            else:
                of.has_scans = True
                self.take(ScanFile(path, _stem(path.relative_to(of.folder))))
        elif path.name.lower().endswith(FOLDER_ENDINGS) or path.name.endswith(RESULT_FOLDER_ENDINGS):
            self.pass_over("tiles", path)
        else:
            return True
        return False

    def _is_scan(self, path: Path, is_output: bool) -> bool:
        """True if a file is named like a scan; counts it as passed over if not."""
        ending = path.suffix.lower()
        if path.name.startswith("."):
            # Companion files of macOS (``._name``), and files of other programs. Hidden files are reported only if
            # they have a scan's ending.
            if ending in SCAN_ENDINGS:
                self.pass_over("hidden", path)
        elif is_result(path):
            self.pass_over("result" if _is_told(path) else "like a result", path)
        elif path.name.endswith(HINT_ENDINGS):
            return False  # what is known of the scan beside it
        elif ending in SCAN_ENDINGS:
            return True
        elif not (
            path.name.endswith(SIDECAR_ENDING)
            or ending in WORLD_ENDINGS
            or (is_output and path.name.startswith(_OF_OUTPUT))
        ):
            self.ignored_files[ending or NO_ENDING] += 1
        return False

    def pattern(self, path: Path, text: str) -> None:
        """Take the scans that a pattern matches."""
        root, is_deep = _fixed_part(path), "**" in path.parts
        of = _Input(path, f"{text}: no file matches this pattern; check it (and quote it)")
        self._inputs.append(of)
        for found in (Path(each) for each in sorted(glob(str(path), recursive=True))):
            inside = found.relative_to(root)
            kind = _kind_of(found)
            if kind in ("node", "circle"):
                self.pass_over("node" if kind == "node" else "circle", found)
            elif any(part.endswith((*STORE_ENDINGS, *RESULT_FOLDER_ENDINGS)) for part in inside.parent.parts):
                self.pass_over("result", found)
            elif kind == "folder" and not _is_scan_folder(found):
                if _is_result_folder(found):
                    self.pass_over("result", found)
                elif not is_deep:
                    self.pass_over("folder", found)
            elif is_result(found):
                self.pass_over("result" if _is_told(found) else "like a result", found)
            elif not found.name.endswith(HINT_ENDINGS):
                of.has_scans = True
                self.take(ScanFile(found, _stem(Path(found.name))))

    def named(self, path: Path, force: bool) -> None:
        """Take a file or folder given by name; results of this project only with ``force``."""
        is_folder = path.is_dir()
        if not force and ((is_result(path) and _is_told(path)) or (is_folder and _is_result_folder(path))):
            self.pass_over("result", path)
        elif is_folder and not _is_scan_folder(path):
            self.folder(path)
        else:
            stem = _stem(Path(path.name)) if is_folder else path.stem
            self.take(ScanFile(path, stem, is_named=True))


def _kind(entry: os.DirEntry[str]) -> Literal["file", "folder", "node", "circle"]:
    """The kind of an entry of a folder; for a link, of its target."""
    try:
        if entry.is_symlink():
            return _kind_of(Path(entry.path))
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "node"
    except OSError:
        return "file"


def _kind_of(path: Path) -> Literal["file", "folder", "node", "circle"]:
    """The kind of a path's target. A missing one counts as a file, so that it is reported as that scan's failure."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return "circle" if error.errno == errno.ELOOP else "file"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "node"


def _is_output(folder: Path, kinds: Mapping[str, str]) -> bool:
    """True if a folder is the output of runs, and not just a folder with the same names in it."""
    if not {RECORDS, THUMBNAILS, SHEET} <= set(kinds):
        return False
    try:
        return is_sheet(folder / SHEET)
    except OSError:
        return False


def _output_notes(inputs: list[Path], output: Path) -> Iterator[str]:
    """A note for each input folder that also receives the results."""
    place = os.path.realpath(output)
    for folder in inputs:
        real = os.path.realpath(folder)
        if place == real:
            yield f"{output}: the results go into the folder of the scans, where later runs pass over them"
        elif place.startswith(real.rstrip("/") + "/"):
            yield f"{output}: the results go into a folder of the input {folder}, where later runs pass over them"


def check_locale() -> None:
    """Raise UsageError unless names are UTF-8: a process with another locale would see other names."""
    if not is_in_utf8():
        raise UsageError(
            f"this process takes names of files for {sys.getfilesystemencoding()}, as its locale says, and results "
            "would get wrong names; start it with PYTHONUTF8=1"
        )


def find_scans(inputs: list[str], output: Path | None = None, force: bool = False) -> Found:
    """Scans from files, folders (searched recursively; sub-folders are kept in the output) and globs, each file once.

    A named file that does not exist is listed: its failure is that scan's, not the run's. A named result of this
    project is left out unless ``force`` is set.

    Parameters
    ----------
    output : where the results go; it is noted if it lies in an input

    Raises
    ------
    UsageError : no input was given, or only results, or none of the folders can be listed. NoScansError : no input
    has a scan; if only some of the inputs have none, :attr:`Found.ignored` says so.
    """
    check_locale()
    search = _Search()
    paths = [_expanded(text) for text in inputs]
    for text, path in zip(inputs, paths, strict=True):
        if not os.path.lexists(path) and has_magic(text):
            search.pattern(path, text)
        else:
            search.named(path, force)
    search.finish()
    notes = () if output is None else tuple(_output_notes([path for path in paths if path.is_dir()], output))
    ignored = SearchReport(
        dict(search.ignored_files.most_common()), tuple(search.empty_inputs), search.passed_over, notes
    )
    if not search.scans:
        raise _nothing_to_do(ignored, is_mistake=bool(search.closed))
    return Found(tuple(search.scans.values()), ignored)


def _nothing_to_do(ignored: SearchReport, is_mistake: bool) -> UsageError:
    """The error that says why there is no scan."""
    passed = [passed_over_line(why, each) for why, each in ignored.passed_over.items()]
    if ignored.empty_inputs:
        return (UsageError if is_mistake else NoScansError)("; ".join((*ignored.empty_inputs, *passed)))
    if "result" in ignored.passed_over:
        return UsageError(f"{'; '.join(passed)}; give the scans, or --force to colour results again")
    return UsageError("no input: give scans, folders or patterns to colour")
