"""The work of a version whose colours are another's, corrected by hints, as tasks for the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace

from flows.cluster.derived_blocks import grouped_blocks
from flows.cluster.hint_blocks import HintTask, SpreadTask
from flows.run.jobs import ScanJob
from pipeline.errors import StoreError
from pipeline.store import ChromaVersion, ScanStore


def predicted_job(job: ScanJob) -> ScanJob:
    """The job that makes the colours that hints then correct; the job itself where there are no hints to do."""
    if not job.spec.is_hinted:
        return job
    try:
        there = ScanStore.open(job.paths.store).find_version(job.spec.version)
    except StoreError:
        there = None
    if there is not None and not job.force and there.is_whole():
        return job
    alone = predicted_job(job.without_copy) if isinstance(job.without_copy, ScanJob) else job.without_copy
    return replace(job, spec=job.spec.predicted, hints=None, without_copy=alone)


def after_prediction(job: ScanJob, done: ScanJob) -> ScanJob:
    """The job that goes on after its predicted colours were made by ``done``, perhaps without its coloured copy."""
    is_without = done.copy is None and job.copy is not None and isinstance(job.without_copy, ScanJob)
    return job.without_copy if is_without and isinstance(job.without_copy, ScanJob) else job


def hinted_job(job: ScanJob) -> ScanJob:
    """The job of the hinted version, whose predicted colours are there."""
    return replace(job, chroma_scale=1.0, is_kept=job.hints is None, copy=None)


def begin_hints(job: ScanJob, version: ChromaVersion) -> None:
    """Take over what is kept beside the colours that are corrected, and keep the hints. StoreError, OutputError."""
    if job.hints is None:
        raise StoreError(f"{job.paths.store}: the hints of {version.name} are gone; run it again with the file")
    version.take_over(ScanStore.open(job.paths.store).version(job.spec.hints_from))
    version.write_hints(job.hints.record, version.attempt)


def spread_tasks(job: ScanJob, version: ChromaVersion) -> Iterator[SpreadTask]:
    """The look at the whole scan, where it was not done yet."""
    if not version.has_correction:
        yield SpreadTask(job.scan.stem, job.paths.store, version.name, version.attempt, job.spec.hints_from)


def hint_groups(
    job: ScanJob, version: ChromaVersion, finished: Set[tuple[int, int]], topic: str
) -> Iterator[tuple[HintTask, ...]]:
    """Groups of the blocks that are missing; their tiles were told of when they were predicted."""
    names = job.scan.stem, job.paths.store, version.name, version.attempt, job.spec.hints_from
    missing = (block for block in job.grid.blocks(version.block_px) if block.index_yx not in finished)
    tasks = (HintTask(*names, block.index_yx, block.write_roi, 0, topic) for block in missing)
    return grouped_blocks(tasks, version.block_px)
