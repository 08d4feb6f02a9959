"""Scans on their way through a run's stages, in batches.

Prefect sees batches. Small scans share one, so that five hundred postcards do not pay for five hundred starts; a large
scan has its own. A scan that fails drops out of its batch and says why, and the others go on. So does one that the
run's deadline leaves unfinished.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from engines.machine import processors
from flows.deadline import Deadline
from flows.outcome import ScanOutcome
from flows.run.jobs import ScanJob
from flows.run.passing_faults import trying_again
from flows.run.planning import failure
from flows.run.planning import stopped as stopped_before
from pipeline.planning.plan import STREAM_THREADS
from pipeline.quality.figures import Quality

_BATCH_MEGAPIXELS = 32.0
_BATCH_SCANS = 32
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScanProgress:
    """A scan on its way: what was done so far, in seconds by stage, and how many blocks were there already.

    ``written`` are the formats whose pictures were not there before.
    """

    job: ScanJob
    seconds: tuple[tuple[str, float], ...] = ()
    blocks_there: int = 0
    tiles: int = 0
    quality: Quality | None = None
    written: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    ended: ScanOutcome | None = None

    def after(self, stage: str, seconds: float) -> ScanProgress:
        return replace(self, seconds=(*self.seconds, (stage, seconds)))

    def broken(self, error: BaseException) -> ScanProgress:
        can_salvage = not self.job.is_ingested and not self.job.reading.salvage
        ended = failure(self.job.scan, error, can_salvage)
        # The file of a scan that was ingested before is not read, so it is not at fault.
        return replace(self, ended=replace(ended, is_scans_fault=ended.is_scans_fault and not self.job.is_ingested))

    def ended_by(self, error: BaseException, deadline: Deadline) -> ScanProgress:
        """The scan ended by an error; while the run is being cancelled, no error counts against the scan."""
        if not deadline.is_cancelled:
            return self.broken(error)
        _log.info("%s: raised after the run was cancelled", self.job.scan.path, exc_info=error)
        return self.stopped(deadline)

    def stopped(self, deadline: Deadline, missing: int | None = None) -> ScanProgress:
        """Ended by the deadline, with so many blocks still to make."""
        return replace(self, ended=stopped(self.job, deadline, missing))


ScanBatch = tuple[ScanProgress, ...]


def stopped(job: ScanJob, deadline: Deadline, missing: int | None = None) -> ScanOutcome:
    """What becomes of a scan that the end of the time leaves unfinished."""
    blocks = job.plan.blocks
    there = "" if missing is None or missing > blocks else f" with {blocks - missing} of {blocks} blocks there"
    return replace(stopped_before(job.scan, deadline, there), megapixels=job.info.megapixels)


def scan_batches(jobs: Iterable[ScanJob]) -> Iterator[ScanBatch]:
    """Neighbouring small scans together, up to 32 megapixels or 32 scans; a larger one alone.

    All scans of a series, whose palettes hang on each other, are one batch.
    """
    batch: list[ScanProgress] = []
    megapixels, every, together = 0.0, list(jobs), dict[str, list[ScanProgress]]()
    for job in every:
        if job.series is not None:
            together.setdefault(job.series.sha256, []).append(ScanProgress(job))
    for job in every:
        if job.series is not None:
            if fellows := together.pop(job.series.sha256, []):
                yield tuple(fellows)
            continue
        if batch and (megapixels + job.info.megapixels > _BATCH_MEGAPIXELS or len(batch) == _BATCH_SCANS):
            yield tuple(batch)
            batch, megapixels = [], 0.0
        batch.append(ScanProgress(job))
        megapixels += job.info.megapixels
    if batch:
        yield tuple(batch)


def batch_name(batch: ScanBatch) -> str:
    """The batch's name for people: the scan's name, or the number of scans and the first of them."""
    first = batch[0].job.scan.stem
    return first if len(batch) == 1 else f"{len(batch)} scans from {first}"


def stream_threads() -> int:
    """Threads of an ingest or an export: two for each processor, because half of them wait for the store."""
    return min(2 * processors(), STREAM_THREADS)


def is_large(batch: ScanBatch) -> bool:
    """Whether its scans are read and written one at a time, each by many threads: the plan has memory for one."""
    return len(batch) == 1 or sum(step.job.info.megapixels for step in batch) > _BATCH_MEGAPIXELS


def each_scan(
    batch: ScanBatch, work: Callable[[ScanProgress], ScanProgress], threads: int, deadline: Deadline
) -> ScanBatch:
    """Do ``work`` for every scan that has not ended; what it raises is that scan's failure."""

    def safely(step: ScanProgress) -> ScanProgress:
        if step.ended is not None:
            return step
        try:
            return trying_again(lambda: work(step), str(step.job.scan.path), deadline)
        except Exception as error:
            return step.ended_by(error, deadline)

    if is_large(batch):
        return tuple(map(safely, batch))
    with ThreadPoolExecutor(threads) as pool:
        return tuple(pool.map(safely, batch))
