"""The version of a scan's store that a job works on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flows.run.jobs import ScanJob
from pipeline.errors import StoreError
from pipeline.quality.score import levels_of
from pipeline.results.run_spec import utc_now
from pipeline.store import ChromaVersion, ScanStore


@dataclass(frozen=True)
class Opened:
    """A version to work on, its blocks that are finished, and whether there is nothing to do."""

    version: ChromaVersion
    finished: set[tuple[int, int]]
    is_whole: bool = False


def open_version(job: ScanJob) -> Opened:
    """The version that the job makes, begun or new, and its blocks that are finished: all, of one that is whole.

    Raises
    ------
    StoreError : it is to be kept, and is not whole.
    """
    store = ScanStore.open(job.paths.store, writable=True)
    begun = store.find_version(job.spec.version)
    if begun is not None and not job.force and begun.is_whole():
        return Opened(begun, set(block_indices(job)), is_whole=True)
    if job.is_kept:
        raise StoreError(
            f"{job.paths.store}: the colours of {job.spec.version} are not whole any more, and this run has other "
            "settings; reprocess makes them again, --force those of this run"
        )
    if job.spec.grade is not None:
        # Its colours are those of another version, whichever of them there are.
        if begun is None or job.force:
            begun = store.create_graded_version(job.spec.version, job.spec.to_json(), utc_now())
        return Opened(begun, set(block_indices(job)))
    if begun is not None and not job.force and begun.block_px == job.plan.block_px:
        begun.remove_unfinished()
        return Opened(begun, begun.finished_blocks())
    made = store.create_version(
        name=job.spec.version,
        settings=job.spec.to_json(),
        block_px=job.plan.block_px,
        scale_factor=job.chroma_scale,
        created=utc_now(),
        levels=levels_of(job.grid) if job.spec.quality else 1,
    )
    return Opened(made, set())


def block_indices(job: ScanJob) -> Iterator[tuple[int, int]]:
    """Row and column of every block, row by row."""
    rows, columns = job.grid.block_counts_yx(job.plan.block_px)
    return ((y, x) for y in range(rows) for x in range(columns))
