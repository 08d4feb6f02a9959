"""How earlier failures affect a run: which scans it leaves out for now, and in which order it takes the others.

A scan that fails is tried again by the next run, then after 1, 2, 4 ... hours, and is quarantined after some failures
in a row: runs leave it out, and say so, until its file changes or somebody releases it. Failures caused by the disk,
the cluster or the options do not count. Nor does a second failure if the run of the first was broken off, because the
run that resumes it is the same work. A scan that is named by itself, rather than found in a folder, is always tried:
somebody wants it now.

Small scans go first: by the morning most scans are done, and a gigapixel scan, which resumes block by block where it
stopped, does not keep hundreds waiting. Scans that failed before go last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.catalogue.records import KnownRun, KnownScan, failures_after
from flows.inputs import ScanFile
from flows.options import RunOptions
from flows.outcome import BROKE_OFF, CANCELLED, KILLED, ScanOutcome
from flows.run.jobs import ScanJob
from pipeline.support.fingerprint import StatFingerprint
from pipeline.support.names import shown

_FIRST_WAIT = timedelta(hours=1)
_LONGEST_WAIT = timedelta(days=7)
_BROKEN_OFF = {KILLED, CANCELLED, BROKE_OFF}
Key = tuple[str, str, int]


def wait_after(failures: int) -> timedelta:
    """How long runs leave a scan out after this many failures in a row: not at all, then 1, 2, 4 ... hours."""
    if failures < 2:
        return timedelta()
    return min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(failures - 2, 20))


@dataclass(frozen=True)
class RetryPolicy:
    """The catalogue's knowledge of the scans when the run began; ``broken_off`` are the runs that never ended."""

    options: RunOptions
    scans: Mapping[Key, KnownScan] = field(default_factory=dict)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    broken_off: frozenset[str] = frozenset()

    @classmethod
    def of(cls, options: RunOptions, scans: Iterable[KnownScan], runs: Iterable[KnownRun] = ()) -> RetryPolicy:
        broken_off = frozenset(run.id for run in runs if run.state in _BROKEN_OFF)
        return cls(options, {scan.key: scan for scan in scans}, broken_off=broken_off)

    def deferred(self, scan: ScanFile) -> ScanOutcome | None:
        """The outcome of a scan that this run leaves out because of its failures; None for all others."""
        known = self.scans.get((scan.stem, str(scan.path), scan.page))
        options = self.options
        if known is None or scan.is_named or options.force or options.retry_quarantined:
            return None
        if known.state == "quarantined" and options.quarantine_after:
            why = f"quarantined after {known.failures} failures in a row"
        elif known.state == "failed" and (until := _time(known.retry_after)) and until > self.now:
            why = f"after {known.failures} failures in a row it waits until {until.astimezone():%Y-%m-%d %H:%M}"
        else:
            return None
        # Records of earlier releases do not give the kind of failure.
        may_be_salvaged = options.salvage and known.failure_kind in ("damaged", "")
        if may_be_salvaged or known.run in self.broken_off or _has_changed(scan.path, known):
            return None
        reason = known.message.removeprefix(f"{shown(scan.path)}: ")
        message = f"{shown(scan.path)}: left out, {why} ({reason}); a new file or --retry-quarantined tries it again"
        return ScanOutcome(scan.stem, str(scan.path), "skipped", message, known.megapixels, page=scan.page)

    def with_retry(self, outcome: ScanOutcome) -> ScanOutcome:
        """A failed outcome, with the time of the next attempt or turned into a quarantine; others unchanged."""
        if outcome.status != "failed" or not outcome.is_scans_fault:
            return outcome
        if (state := _state(Path(outcome.path))) is not None:
            outcome = replace(outcome, file_bytes=state.bytes, file_modified_ns=state.modified_ns)
        before = self.scans.get((outcome.scan, outcome.path, outcome.page))
        failures = self._failures(before, outcome)
        outcome = replace(outcome, failures=failures)
        if self.options.quarantine_after and failures >= self.options.quarantine_after:
            return replace(outcome, status="quarantined")
        wait = wait_after(failures)
        return replace(outcome, retry_after=(self.now + wait).isoformat(timespec="seconds")) if wait else outcome

    def _failures(self, before: KnownScan | None, outcome: ScanOutcome) -> int:
        """Failures in a row, this one included. A repeat in a run that resumes a broken-off one does not count."""
        failures = failures_after(before, vars(outcome))
        has_counted = before is not None and before.run in self.broken_off and before.failures > 0
        return max(1, failures - 1) if has_counted else failures

    def in_order(self, jobs: Iterable[ScanJob]) -> list[ScanJob]:
        """Small scans first, those that failed before last."""

        def rank(job: ScanJob) -> tuple[bool, float]:
            known = self.scans.get((job.scan.stem, str(job.scan.path), job.scan.page))
            return bool(known and known.failures), job.info.megapixels

        return sorted(jobs, key=rank)


def _has_changed(path: Path, known: KnownScan) -> bool:
    """True if the file has changed since it failed, or if that is unknown."""
    state = _state(path)
    return state is None or (state.bytes, state.modified_ns) != (known.bytes, known.modified_ns)


def _state(path: Path) -> StatFingerprint | None:
    try:
        return StatFingerprint.of(path)
    except OSError:
        return None


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
