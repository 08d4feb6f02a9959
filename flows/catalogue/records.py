"""The catalogue's rows as values, and how each outcome of a run changes them.

The same functions serve a run that records its outcomes and a catalogue rebuilt from the results, so that both give the
same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pipeline.endings import FORMATS as ENDINGS
from pipeline.results.sidecar import SIDECAR_ENDING, Sidecar, SourceRecord

ScanState = Literal["done", "failed", "quarantined", "stopped"]
RUNNING, COMPLETED = "running", "Completed"


@dataclass(frozen=True)
class KnownScan:
    """One scan as the catalogue knows it.

    ``bytes`` and ``modified_ns`` are the file's when it was last checked, 0 if unknown; ``sha256`` is of the file that
    the current result was made from; ``failures`` counts failures in a row; ``retry_after`` is ISO 8601 in UTC, or
    empty; ``run`` is the last run that worked on the scan, empty if its record is missing; ``failure_kind`` is as in
    :class:`flows.outcome.ScanOutcome`.
    """

    stem: str
    path: str
    page: int = 1
    bytes: int = 0
    modified_ns: int = 0
    sha256: str = ""
    megapixels: float = 0.0
    state: ScanState = "done"
    failures: int = 0
    retry_after: str = ""
    message: str = ""
    run: str = ""
    failure_kind: str = ""

    @property
    def key(self) -> tuple[str, str, int]:
        return self.stem, self.path, self.page


@dataclass(frozen=True)
class KnownVersion:
    """An existing version of a scan's colours. ``pictures``: format to file name, relative to the output folder.

    ``doubt`` is the expected CIEDE2000 to the truth.
    """

    stem: str
    version: str
    is_current: bool
    finished: str
    tile: str
    stride: str
    window: str
    model: str
    engine: str
    precision: str
    seam: float | None
    disagreement: float | None
    doubt: float | None
    seconds: float
    pictures: dict[str, str]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class KnownRun:
    """A run: ``state`` is "running", "killed", or the name of the state that it ended in; times are ISO 8601, UTC."""

    id: str
    kind: str
    started: str
    finished: str
    engine: str
    model: str
    state: str
    done: int = 0
    skipped: int = 0
    failed: int = 0
    stopped: int = 0
    megapixels: float = 0.0

    @property
    def seconds(self) -> float:
        """Time from start to end; 0 if the run has not ended."""
        try:
            return (datetime.fromisoformat(self.finished) - datetime.fromisoformat(self.started)).total_seconds()
        except ValueError:
            return 0.0

    def counting(self, outcome: Mapping[str, Any]) -> KnownRun:
        """The run with one more outcome counted."""
        status = "failed" if outcome["status"] == "quarantined" else str(outcome["status"])
        megapixels = self.megapixels + (outcome.get("megapixels", 0.0) if status == "done" else 0.0)
        return replace(self, megapixels=round(megapixels, 3), **{status: getattr(self, status) + 1})


def released(scan: KnownScan) -> KnownScan:
    """The scan as the next run will try it again, with its count of failures reset."""
    if scan.state not in ("failed", "quarantined"):
        return scan
    return replace(scan, state="failed", failures=0, retry_after="")


@dataclass(frozen=True)
class KnownFailure:
    """A scan that failed in a run, and why."""

    run: str
    stem: str
    path: str
    page: int
    message: str


def key_of(outcome: Mapping[str, Any]) -> tuple[str, str, int]:
    """Stem, path and page of the scan that an outcome is about."""
    return str(outcome["scan"]), str(outcome["path"]), int(outcome.get("page", 1))


def scan_after(before: KnownScan | None, outcome: Mapping[str, Any], run: str) -> KnownScan | None:
    """The scan after an outcome of a run, given as JSON; None if nothing is known of it."""
    status = outcome["status"]
    known = before or KnownScan(*key_of(outcome))
    if outcome.get("megapixels"):
        known = replace(known, megapixels=float(outcome["megapixels"]))
    if status == "skipped" and not outcome.get("result"):
        return before  # left out unread: in quarantine, or waiting for its next attempt
    if status in ("done", "skipped"):
        if before is not None and status == "skipped" and before.state == "done":
            return before
        return replace(known, state="done", failures=0, retry_after="", message="", failure_kind="", run=run)
    message, retry_after = str(outcome["message"]), str(outcome.get("retry_after", ""))
    if status == "stopped":
        return replace(known, state="stopped", message=message, run=run)
    state: ScanState = "quarantined" if status == "quarantined" else "failed"
    failures = int(outcome.get("failures", 0)) or failures_after(before, outcome)
    known = replace(known, failure_kind=str(outcome.get("failure_kind", "")))
    if outcome.get("file_bytes") or outcome.get("file_modified_ns"):
        known = replace(known, bytes=outcome["file_bytes"], modified_ns=outcome["file_modified_ns"])
    return replace(known, state=state, failures=failures, retry_after=retry_after, message=message, run=run)


def failures_after(before: KnownScan | None, outcome: Mapping[str, Any]) -> int:
    """Failures in a row after one more; failures of an earlier file at the same path do not count."""
    file = outcome.get("file_bytes", 0), outcome.get("file_modified_ns", 0)
    is_same = before is not None and (not any(file) or file == (before.bytes, before.modified_ns))
    # A full disk or a lost cluster is not the scan's fault.
    return (before.failures if before is not None and is_same else 0) + bool(outcome.get("is_scans_fault", True))


def with_source(scan: KnownScan, source: SourceRecord) -> KnownScan:
    """The scan with the hash and size that a result records of it."""
    height, width = source.shape_yx
    megapixels = round(height * width / 1e6, 3)
    return replace(scan, sha256=source.sha256, bytes=scan.bytes or source.bytes, megapixels=megapixels)


def version_of_sidecar(output: Path, path: Path, sidecar: Sidecar) -> KnownVersion | None:
    """The version that the sidecar at ``path`` describes; None if the sidecar is incomplete."""
    spec, work, figures = sidecar.spec, sidecar.work, sidecar.figures
    if spec is None or work is None or not sidecar.whole_source or not sidecar.says("pictures", "finished"):
        return None
    if sidecar.quality and figures is None:
        return None
    folder = PurePosixPath(path.parent.relative_to(output).as_posix())
    name = path.name.removesuffix(SIDECAR_ENDING)
    stem = name.removesuffix(f".{spec.version}")
    return KnownVersion(
        stem=(folder / stem).as_posix(),
        version=spec.version,
        is_current=stem == name,
        finished=sidecar.finished,
        tile=_size(spec.tile_yx),
        stride=_size(spec.stride_yx),
        window=spec.window,
        model=spec.model,
        engine=spec.engine,
        precision=spec.precision,
        seam=figures.seam if figures else None,
        disagreement=figures.disagreement_mean if figures else None,
        doubt=figures.doubt.expected if figures and figures.doubt else None,
        seconds=round(sum(work.seconds.values()), 3),
        pictures={key: (folder / f"{name}{ENDINGS[key]}").as_posix() for key in sidecar.pictures if key in ENDINGS},
        warnings=tuple(_warnings(sidecar)),
    )


def _size(size_yx: tuple[int, int]) -> str:
    """A size as users write it: 256, or HEIGHTxWIDTH."""
    return str(size_yx[0]) if size_yx[0] == size_yx[1] else f"{size_yx[0]}x{size_yx[1]}"


def _warnings(sidecar: Sidecar) -> list[str]:
    """Short warnings for the operator."""
    found, figures = [], sidecar.figures
    if holes := len(sidecar.source.holes) if sidecar.source else 0:
        found.append(f"{holes} part{'s' * (holes != 1)} could not be read, plain gray")
    for name, picture in sidecar.pictures.items():
        # The profile and XMP may be our own, if the scan has none; the run itself reports their loss.
        lost = [what for what in picture.not_carried if what not in ("icc", "xmp")]
        found += [f"{name} does not carry {', '.join(lost)}"] if lost else []
    if figures is not None and figures.is_missed:
        found.append(f"seam {figures.seam:.2f}, more than the {figures.wanted:g} asked for")
    return found


def run_of_record(run: str, record: Mapping[str, Any]) -> KnownRun:
    """A run from its own record. Raises KeyError or TypeError if ``record`` is not one."""
    known = KnownRun(
        id=run,
        kind=str(record.get("kind", "colorize")),
        started=str(record["started"]),
        finished=str(record["finished"]),
        engine=str(record["engine"]),
        model=str(record["model"]),
        state=str(record.get("state", "")) or _state_of(record["scans"]),
    )
    for outcome in record["scans"]:
        known = known.counting(outcome)
    return known


def _state_of(outcomes: list[Mapping[str, Any]]) -> str:
    """The final state of a run whose record lacks it, from releases that had no catalogue."""
    return "Some scans failed" if any(outcome["status"] == "failed" for outcome in outcomes) else COMPLETED
