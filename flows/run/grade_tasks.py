"""The work of a version whose colours are made from another's, as tasks for the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace

from flows.cluster.derived_blocks import grouped_blocks
from flows.cluster.grade_blocks import FactorTask, GradeTask
from flows.events import TilesDone, tell
from flows.run.jobs import ScanJob
from pipeline.colour.grading import Grade
from pipeline.store import ChromaVersion, ScanStore


def begin_grade(job: ScanJob, version: ChromaVersion) -> None:
    """Take over what is kept beside the colours that are graded. Raises StoreError, OutputError."""
    version.take_over(ScanStore.open(job.paths.store).version(job.spec.graded_from))


def factor_tasks(job: ScanJob, version: ChromaVersion) -> Iterator[FactorTask]:
    """The search for the factor on chroma, where a colourfulness is to be reached and it is not known yet."""
    grade = job.spec.grade
    if grade is not None and grade.colourfulness is not None and version.factor is None:
        names = job.scan.stem, job.paths.store, version.name, version.attempt
        yield FactorTask(*names, job.spec.graded_from, grade)


def grade_groups(
    job: ScanJob, version: ChromaVersion, finished: Set[tuple[int, int]], topic: str
) -> Iterator[tuple[GradeTask, ...]]:
    """Groups of the blocks that are missing; those that are ``finished`` are told of."""
    grade = job.spec.grade
    assert grade is not None, "it is graded"
    alike = _alike(job, grade)

    def missing() -> Iterator[GradeTask]:
        for block in job.grid.blocks(version.block_px):
            tiles = len(block.tile_origins)
            if block.index_yx in finished:
                tell(TilesDone(job.scan.stem, tiles, are_new=False))
                continue
            names = job.scan.stem, job.paths.store, version.name, version.attempt, job.spec.graded_from
            yield GradeTask(*names, grade, alike, block.index_yx, block.write_roi, tiles, topic)

    return grouped_blocks(missing(), version.block_px)


def _alike(job: ScanJob, grade: Grade) -> str:
    """The name of the version with all of a grade but its last region; empty where it has none."""
    if not grade.regions:
        return ""
    before = grade.before_last
    return job.spec.graded_from if before.is_identity else replace(job.spec, grade=before).version
