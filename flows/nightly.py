"""What a run makes of those before it: which scans it leaves alone for now, and in which order it takes the others.

A scan that fails is tried again by the next run, then after 1, 2, 4 ... hours, and is quarantined after some failures
in a row: runs leave it out, and say so, until its file changes or somebody releases it. Failures of the disk, of the
cluster and of the options are not the scan's and do not count. A scan that is named by itself, rather than found in a
folder, is always tried: somebody wants it now.

Small scans go first: by the morning most scans are done, and one of a gigapixel, which goes on block by block where it
was stopped, does not keep hundreds waiting. What failed before goes last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.catalogue_values import KnownScan, failures_after
from flows.inputs import ScanFile
from flows.jobs import Job, Outcome
from flows.settings import RunOptions
from pipeline.at_rest import FileState

_FIRST_WAIT = timedelta(hours=1)
_LONGEST_WAIT = timedelta(days=7)
Key = tuple[str, str, int]


def wait_after(failures: int) -> timedelta:
    """How long runs leave a scan alone after so many failures in a row: not at all, then 1, 2, 4 ... hours."""
    if failures < 2:
        return timedelta()
    return min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(failures - 2, 20))


@dataclass(frozen=True)
class History:
    """What the catalogue knew of the scans when the run began."""

    options: RunOptions
    scans: Mapping[Key, KnownScan] = field(default_factory=dict)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def of(cls, options: RunOptions, scans: Iterable[KnownScan]) -> History:
        return cls(options, {scan.key: scan for scan in scans})

    def held_back(self, scan: ScanFile) -> Outcome | None:
        """The outcome of a scan that is left out of this run because of its failures; None for all others."""
        known = self.scans.get((scan.stem, str(scan.path), scan.page))
        options = self.options
        if known is None or scan.is_named or options.force or options.retry_quarantined:
            return None
        if _has_changed(scan.path, known) or (options.salvage and "--salvage" in known.message):
            return None
        if known.state == "quarantined" and options.quarantine_after:
            why = f"quarantined after {known.failures} failures in a row"
        elif known.state == "failed" and (until := _time(known.retry_after)) and until > self.now:
            why = f"after {known.failures} failures in a row it waits until {until.astimezone():%Y-%m-%d %H:%M}"
        else:
            return None
        reason = known.message.removeprefix(f"{scan.path}: ")
        message = f"{scan.path}: left out, {why} ({reason}); a new file or --retry-quarantined tries it again"
        return Outcome(scan.stem, str(scan.path), "skipped", message, known.megapixels, page=scan.page)

    def judged(self, outcome: Outcome) -> Outcome:
        """A failure of a scan with when it is tried again, or as the one that puts it into quarantine."""
        if outcome.status != "failed" or not outcome.is_scans_fault:
            return outcome
        if (state := _state(Path(outcome.path))) is not None:
            outcome = replace(outcome, file_bytes=state.bytes, file_modified_ns=state.modified_ns)
        before = self.scans.get((outcome.scan, outcome.path, outcome.page))
        failures = failures_after(before, vars(outcome))
        if self.options.quarantine_after and failures >= self.options.quarantine_after:
            return replace(outcome, status="quarantined")
        wait = wait_after(failures)
        return replace(outcome, retry_after=(self.now + wait).isoformat(timespec="seconds")) if wait else outcome

    def in_order(self, jobs: Iterable[Job]) -> list[Job]:
        """Small scans first, those that failed before last."""

        def rank(job: Job) -> tuple[bool, float]:
            known = self.scans.get((job.scan.stem, str(job.scan.path), job.scan.page))
            return bool(known and known.failures), job.info.megapixels

        return sorted(jobs, key=rank)


def _has_changed(path: Path, known: KnownScan) -> bool:
    """Whether a file is other than when it failed, or that is not known."""
    state = _state(path)
    return state is None or (state.bytes, state.modified_ns) != (known.bytes, known.modified_ns)


def _state(path: Path) -> FileState | None:
    try:
        return FileState.of(path)
    except OSError:
        return None


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
