"""The work of a version whose tiles a generator predicts, as tasks for the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from flows.cluster.worker import BlockTask, Reuse, chosen_tiles
from flows.events import TilesDone, tell
from flows.run.jobs import ScanJob, grid_of
from flows.run.opened_version import block_indices
from pipeline.quality.score import has_helped, levels_of, measure, tiles_to_add
from pipeline.results.run_spec import RunSpec
from pipeline.store import ChromaVersion, ScanStore
from pipeline.types import Roi


def tile_tasks(job: ScanJob, version: ChromaVersion, finished: set[tuple[int, int]], topic: str) -> Iterator[BlockTask]:
    """Tasks of the blocks that are missing; those that are ``finished`` are told of."""
    # Where all is there, a version whose tiles were taken over may be gone.
    task = _task(job, version, topic) if any(index not in finished for index in block_indices(job)) else None
    for index in block_indices(job):
        if task is None or index in finished:
            tiles = len(job.grid.block(index, job.plan.block_px).tile_origins)
            tell(TilesDone(job.scan.stem, tiles, are_new=False))
        else:
            yield replace(task, index_yx=index)


def refining_tasks(job: ScanJob, version: ChromaVersion, level: int, topic: str) -> Iterator[BlockTask]:
    """Tasks of the blocks that have tiles of this level and not yet their colours."""
    finished = version.finished_blocks(level)
    task = _task(job, version, topic)
    for index in block_indices(job):
        at_level = replace(task, index_yx=index, level=level)
        if index not in finished and chosen_tiles(version, at_level, level):
            yield at_level


def choose_tiles(job: ScanJob, version: ChromaVersion, level: int) -> bool:
    """Whether there is a refinement of this level; decided once, from what is stored, and kept."""
    if version.levels_chosen >= level:
        return True
    if level >= levels_of(job.grid):
        return False
    store = ScanStore.open(job.paths.store)
    score = measure(store, version, job.grid).seam
    if score is None or score <= job.spec.quality:
        return False
    if level > 1 and not has_helped(version.score_before(level - 1), score):
        return False
    height, width = job.info.shape_yx
    spread, _ = version.spread(Roi(0, height, 0, width))
    earlier = [version.chosen(n) for n in range(1, level)]
    chosen = tiles_to_add(spread, job.grid, earlier, score, job.spec.quality)
    if not chosen.any():
        return False
    version.write_chosen(level, chosen, score)
    return True


def _reuse(job: ScanJob) -> Reuse | None:
    if not job.spec.reused:
        return None
    before = ScanStore.open(job.paths.store).version(job.spec.reused)
    spec = RunSpec.from_json(before.settings)
    return Reuse(job.spec.reused, grid_of(spec, job.info.shape_yx))


def _task(job: ScanJob, version: ChromaVersion, topic: str) -> BlockTask:
    """The first block's task, which the others differ from by their index only."""
    assert job.engine_spec is not None, "a run without an engine predicts nothing"
    return BlockTask(
        scan=job.scan.stem,
        store=job.paths.store,
        version=version.name,
        grid=job.grid,
        block_px=job.plan.block_px,
        index_yx=(0, 0),
        window=job.spec.window,
        engine=job.engine_spec,
        attempt=version.attempt,
        topic=topic,
        reuse=_reuse(job),
        anchor=job.spec.anchor,
        takes_palette=job.takes_palette,
    )
