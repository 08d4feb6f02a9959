"""The work of a graded version: it has none on the cluster but the search for its factor."""

from __future__ import annotations

from collections.abc import Iterator

from flows.cluster.derived_blocks import check_blocks
from flows.cluster.grade_factors import FactorTask
from flows.events import TilesDone, tell
from flows.run.jobs import ScanJob
from pipeline.store import ChromaVersion, ScanStore
from pipeline.types import Roi


def begin_grade(job: ScanJob, version: ChromaVersion) -> None:
    """See that the colours that are graded are whole, and take over what is kept beside them. All tiles are told of.

    Raises StoreError, OutputError.
    """
    store, (height, width) = ScanStore.open(job.paths.store), job.info.shape_yx
    before = store.version(job.spec.graded_from)
    check_blocks(store, before, Roi(0, height, 0, width))
    version.take_over(before)
    tell(TilesDone(job.scan.stem, job.plan.predictions, are_new=False))


def factor_tasks(job: ScanJob, version: ChromaVersion) -> Iterator[FactorTask]:
    """The search for the factor on chroma, where a colourfulness is to be reached and it is not known yet."""
    grade = job.spec.grade
    if grade is not None and grade.colourfulness is not None and version.factor is None:
        names = job.scan.stem, job.paths.store, version.name, version.attempt
        yield FactorTask(*names, job.spec.graded_from, grade)
