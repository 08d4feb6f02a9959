"""Reads what the catalogue needs from the results of an output folder: sidecars and records of runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.catalogue.records import (
    KnownFailure,
    KnownRun,
    KnownScan,
    KnownVersion,
    key_of,
    released,
    run_of_record,
    scan_after,
    version_of_sidecar,
    with_source,
)
from flows.inputs import STORE_ENDINGS
from pipeline.endings import FORMAT_FOLDERS as FOLDER_ENDINGS
from pipeline.results.decisions import Decision, read_decisions
from pipeline.results.sidecar import SIDECAR_ENDING, Sidecar, SourceRecord
from pipeline.support.files import read_json, walk, write_json, writing

RELEASED = "released"
_DECISIONS = "runs/decisions"
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Results:
    """Everything that is known without a catalogue."""

    scans: tuple[KnownScan, ...]
    versions: tuple[KnownVersion, ...]
    runs: tuple[KnownRun, ...]
    failures: tuple[KnownFailure, ...]
    decisions: tuple[Decision, ...] = ()


def results_of(output: Path) -> Results:
    """Read every sidecar and every record below ``output``; foreign or incomplete files are skipped."""
    history = _History.of(output)
    versions, scans = [], history.scans
    there: set[str] = set()
    for path in _sidecars(output):
        sidecar = Sidecar.find(path)
        version = version_of_sidecar(output, path, sidecar) if sidecar else None
        if sidecar is None or version is None:
            continue
        versions.append(version)
        if version.is_current and sidecar.whole_source is not None:
            there.add(version.stem)
            _add_source(scans, version.stem, sidecar.whole_source)
    known = [scan for scan in scans.values() if scan.state != "done" or scan.stem in there]
    said = tuple(each for decisions in read_decisions(output).values() for each in decisions)
    return Results(tuple(known), tuple(versions), tuple(history.runs), tuple(history.failures.values()), said)


def is_gone(scan: KnownScan) -> bool:
    """True if a scan has no result and its file is no longer in its folder.

    False if the folder is empty: it may be the mount point of a drive that is away.
    """
    path = Path(scan.path)
    if scan.state == "done" or not path.is_absolute() or os.path.lexists(path):
        return False
    try:
        return any(path.parent.iterdir())
    except OSError:
        return False


def is_record(path: Path) -> bool:
    """True if a file is the record of a run, and not a foreign file in the same folder."""
    record = read_json(path)
    try:
        return record is not None and bool(run_of_record(path.stem, record))
    except (KeyError, TypeError, ValueError):
        return False


def _add_source(scans: dict[Key, KnownScan], stem: str, source: SourceRecord) -> None:
    """Add what a result says of its scan. After a killed run, the scan may be in no record."""
    named = (stem, source.path, source.page)
    # The store keeps the path of the first ingest; the scan may have been found elsewhere since.
    done = [key for key, scan in scans.items() if key[0] == stem and scan.state == "done"] if named not in scans else []
    for key in done or [named]:
        scans[key] = with_source(scans.get(key) or KnownScan(*key), source)


@dataclass
class _History:
    """Scans, runs and failures after replaying the records of the runs in order."""

    scans: dict[Key, KnownScan]
    runs: list[KnownRun]
    failures: dict[tuple[str, Key], KnownFailure]

    @classmethod
    def of(cls, output: Path) -> _History:
        history = cls({}, [], {})
        found = [*output.glob("runs/*.json"), *output.glob(f"{_DECISIONS}/*.json")]
        for path in sorted(found, key=lambda path: path.name):
            record = read_json(path)
            if record is not None:
                history._add(path.stem, record)
        return history

    def _add(self, run: str, record: Mapping[str, Any]) -> None:
        try:
            if "decision" in record:
                return self._decide(record)
            known = run_of_record(run, record)
            for outcome in record["scans"]:
                self._take(run, outcome)
        except (KeyError, TypeError, ValueError):
            return None  # a foreign file
        return self.runs.append(known)

    def _take(self, run: str, outcome: Mapping[str, Any]) -> None:
        key = key_of(outcome)
        before = self.scans.get(key)
        after = scan_after(before, outcome, run)
        if after is None or after == before:
            return
        if after.state == "done":
            for other in [o for o, scan in self.scans.items() if o[0] == key[0] and scan.run != run]:
                del self.scans[other]
        if outcome["status"] in ("failed", "quarantined"):
            self.failures[run, key] = KnownFailure(run, *key, after.message)
        self.scans[key] = after

    def _decide(self, decision: Mapping[str, Any]) -> None:
        for key, scan in self.scans.items():
            if decision["decision"] == RELEASED and key[0] in decision["scans"]:
                self.scans[key] = released(scan)


def write_decision(output: Path, decision: str, stems: list[str]) -> None:
    """Save a decision about scans, so that a rebuilt catalogue knows it, too. Raises OutputError."""
    now = time.time_ns()
    when = datetime.fromtimestamp(now // 10**9, UTC).isoformat(timespec="seconds")
    path = output / _DECISIONS / f"{stamp(when)}-{now % 10**9:09}.json"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"decision": decision, "when": when, "scans": stems})


def stamp(when: str) -> str:
    """A time as the beginning of a record's name, so that names sort by time."""
    return when.replace(":", "").replace("+0000", "Z")


def _sidecars(output: Path) -> Iterator[Path]:
    for parent, names, files in walk(output):
        names[:] = [name for name in names if not name.endswith((*STORE_ENDINGS, *FOLDER_ENDINGS))]
        yield from (parent / name for name in files if name.endswith(SIDECAR_ENDING))
