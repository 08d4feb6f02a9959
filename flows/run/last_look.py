"""The answer of the last look, which holds as long as nothing has changed that it was made from.

A look at all scans (:mod:`flows.run.unchanged`) opens the sidecar of each. When it has found that nothing is due, the
states of all files that it went by are kept as one hash, with the record that has its outcomes. While the hash is the
same, so is the answer; a look costs then only what asking for the states costs. As with hashes of scans
(:mod:`pipeline.support.fingerprint`), no file may have changed just before: its times might not show a further change.

The states are those of the scans, and of whatever lies in the output folder but for what runs write there without
changing a result. A file that cannot be asked, hints, and scans that failed leave it to the look itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flows.inputs import RECORDS, SHEET, THUMBNAILS, ScanFile
from flows.outcome import ScanOutcome
from flows.run.hint_files import names_of_hints
from flows.run.jobs import RunContext
from pipeline.errors import OutputError
from pipeline.results.run_spec import ALGORITHM
from pipeline.support.files import LOCK_FILE, read_json, write_json
from pipeline.support.fingerprint import StatFingerprint

FILE = "last-look"
_FORMAT = 1
# Tiles and small files of a result are many; a folder of other things would take longer than the look.
_MOST_OF_A_SCAN, _MOST_OTHERS = 1000, 50_000
_STORE = ".zarr"
_NOT_RESULTS = (RECORDS, THUMBNAILS, SHEET, LOCK_FILE)
_CATALOGUE = "catalogue."
_FIELDS = frozenset(each.name for each in fields(ScanOutcome))


class _UnknownError(Exception):
    """The states do not tell all that a look goes by."""


@dataclass(frozen=True)
class State:
    """Everything that a look goes by, as one hash. ``is_old``: any later change of a file would show in its times."""

    sha256: str
    is_old: bool


def state_of(scans: Sequence[ScanFile], context: RunContext) -> State | None:
    """The state before a look; None where it would not tell everything."""
    began_ns, options = time.time_ns(), replace(context.options, until=None)
    settings = (options, context.choice, context.model.card, version("colorize-archive"), ALGORITHM, _FORMAT)
    digest, is_old = hashlib.sha256(_bytes(settings)), True
    try:
        if context.options.hints is not None or any(map(names_of_hints, {scan.path.parent for scan in scans})):
            raise _UnknownError
        for scan in scans:
            state = StatFingerprint.of(scan.path)
            is_old = is_old and state.is_quiescent(began_ns)
            digest.update(_bytes((scan, state)))
        for path, there in _results(str(options.output), _MOST_OTHERS + _MOST_OF_A_SCAN * len(scans)):
            is_old = is_old and (there is None or there.is_quiescent(began_ns))
            digest.update(_bytes((path, there)))
    except (OSError, _UnknownError):
        return None
    return State(digest.hexdigest(), is_old)


def _bytes(value: object) -> bytes:
    return repr(value).encode("utf-8", "surrogateescape")


def _results(output: str, most: int) -> Iterator[tuple[str, StatFingerprint | None]]:
    """Whatever below the output folder may be of a result, with its state; None for a folder, whose contents follow.

    Raises
    ------
    OSError : a folder cannot be listed. _UnknownError : there are hints, links to folders, or more than ``most`` files,
    which are not of these scans.
    """
    pending, count = [output], 0
    while pending:
        folder = pending.pop()
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda each: each.name)
        if names_of_hints(Path(folder)):
            raise _UnknownError
        for entry in entries:
            name = entry.name
            if folder == output and (name in _NOT_RESULTS or name.startswith(_CATALOGUE)):
                continue
            count += 1
            if count > most or (entry.is_symlink() and entry.is_dir()):
                raise _UnknownError
            status = entry.stat()
            if entry.is_dir() and not _is_store(name):
                pending.append(entry.path)
                yield entry.path, None
            else:
                yield (
                    entry.path,
                    StatFingerprint(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino),
                )


def _is_store(name: str) -> bool:
    return name.endswith(_STORE) and ".color." not in name


def recall(output: Path, state: State) -> list[ScanOutcome] | None:
    """The outcomes of the last look if it was made from the same ``state``; else None."""
    kept = read_json(output / RECORDS / FILE) or {}
    if kept.get("state") != state.sha256:
        return None
    record = read_json(output / RECORDS / str(kept.get("record")))
    try:
        return [_outcome(told) for told in record["scans"]] if record else None
    except (KeyError, TypeError):
        return None


def _outcome(told: Any) -> ScanOutcome:
    return ScanOutcome(**{name: told[name] for name in _FIELDS & told.keys()} | {"seconds": (), "warnings": ()})


def keep(output: Path, state: State, record: Path) -> None:
    """Keep the answer of a look that began in this state, and whose outcomes are in a run's ``record``."""
    if state.is_old:
        with contextlib.suppress(OutputError):  # the next look takes longer
            write_json(output / RECORDS / FILE, {"state": state.sha256, "record": record.name})
