"""The three stages of a lot of scans: ingest, colorize, export. Prefect sees lots; a large scan is a lot of its own.

Small scans share a lot, so that five hundred postcards do not pay for five hundred starts. A scan that fails drops out
of its lot and says why; the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from flows.blocks import BlockDone, BlockFailed, BlockTask, Reuse
from flows.cluster import processors
from flows.jobs import Job, Outcome
from flows.planning import failure
from flows.progress import listener
from flows.results import export_job
from flows.scheduling import BlockQueue, grouped
from pipeline.errors import StoreError
from pipeline.grid import TileGrid
from pipeline.ingest import ingest, settle_store
from pipeline.manifest import RunSpec, utc_now
from pipeline.plan import STREAM_THREADS
from pipeline.store import ChromaVersion, ScanStore

_LOT_MEGAPIXELS = 32.0
_LOT_SCANS = 32


@dataclass(frozen=True)
class Step:
    """A scan on its way: what was done so far, in seconds by stage, and how many blocks were there already."""

    job: Job
    seconds: tuple[tuple[str, float], ...] = ()
    blocks_there: int = 0
    failed: Outcome | None = None

    def after(self, stage: str, seconds: float) -> Step:
        return replace(self, seconds=(*self.seconds, (stage, seconds)))

    def broken(self, error: BaseException) -> Step:
        return replace(self, failed=failure(self.job.scan, error))


Lot = tuple[Step, ...]


def lots(jobs: Iterable[Job]) -> Iterator[Lot]:
    """Neighbouring small scans together, up to 32 megapixels or 32 scans; a larger one alone."""
    lot: list[Step] = []
    megapixels = 0.0
    for job in jobs:
        if lot and (megapixels + job.info.megapixels > _LOT_MEGAPIXELS or len(lot) == _LOT_SCANS):
            yield tuple(lot)
            lot, megapixels = [], 0.0
        lot.append(Step(job))
        megapixels += job.info.megapixels
    if lot:
        yield tuple(lot)


def lot_name(lot: Lot) -> str:
    """For people: the scan's name, or how many from which on."""
    first = lot[0].job.scan.stem
    return first if len(lot) == 1 else f"{len(lot)} scans from {first}"


def stream_threads() -> int:
    """Threads of an ingest or an export: two for each processor, because half of them wait for the store."""
    return min(2 * processors(), STREAM_THREADS)


def _each(lot: Lot, work: Callable[[Step], Step], threads: int) -> Lot:
    """Do ``work`` for every scan that has not failed; what it raises is that scan's failure."""

    def safely(step: Step) -> Step:
        if step.failed is not None:
            return step
        try:
            return work(step)
        except Exception as error:
            return step.broken(error)

    if len(lot) == 1:
        return (safely(lot[0]),)
    with ThreadPoolExecutor(threads) as pool:
        return tuple(pool.map(safely, lot))


def ingest_lot(lot: Lot) -> Lot:
    """Scan files to Zarr; what is there already for the same bytes stays."""

    def work(step: Step) -> Step:
        started, job = time.perf_counter(), step.job
        settle_store(job.paths.store)
        if job.is_ingested:
            if not ScanStore.open(job.paths.store).has_whole_scan():
                raise StoreError(f"{job.paths.store}: not all of the scan is there; use colorize-archive run")
        else:
            job.paths.store.parent.mkdir(parents=True, exist_ok=True)
            ingest(job.scan.path, job.paths.store, job.source, job.force, stream_threads() if len(lot) == 1 else 1)
        return step.after("ingest", time.perf_counter() - started)

    return _each(lot, work, stream_threads())


def _open_version(job: Job) -> tuple[ChromaVersion, set[tuple[int, int]]]:
    """The version that the job makes, begun or new, and its blocks that are finished."""
    store = ScanStore.open(job.paths.store, writable=True)
    begun = store.find_version(job.spec.version)
    if begun is not None and not job.force and begun.block_px == job.plan.block_px:
        begun.remove_unfinished()
        return begun, begun.finished_blocks()
    made = store.create_version(job.spec.version, job.spec.to_json(), job.plan.block_px, job.chroma_scale, utc_now())
    return made, set()


def _reuse(job: Job) -> Reuse | None:
    if not job.spec.reused:
        return None
    before = ScanStore.open(job.paths.store).version(job.spec.reused)
    spec = RunSpec.from_json(before.settings)
    return Reuse(job.spec.reused, TileGrid.of(job.info.shape_yx, spec.tile_yx, spec.stride_yx))


def _tasks(job: Job, version: ChromaVersion, finished: set[tuple[int, int]], topic: str) -> Iterator[BlockTask]:
    rows, columns = job.grid.block_counts_yx(job.plan.block_px)
    task = BlockTask(
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
    )
    for index in ((y, x) for y in range(rows) for x in range(columns)):
        if index in finished:
            tiles = len(job.grid.block(index, job.plan.block_px).tiles_yx)
            listener().predicted(job.scan.stem, tiles)
        else:
            yield replace(task, index_yx=index)


def colorize_lot(lot: Lot, queue: BlockQueue, topic: str) -> Lot:
    """Chroma of every block that is missing, on the cluster. A lot's seconds are shared out by tiles."""
    started = time.perf_counter()
    steps = {step.job.scan.stem: step for step in lot}
    versions: dict[str, ChromaVersion] = {}

    def tasks() -> Iterator[BlockTask]:
        for stem, step in list(steps.items()):
            if step.failed is not None:
                continue
            try:
                versions[stem], finished = _open_version(step.job)
                steps[stem] = replace(step, blocks_there=len(finished))
                for task in _tasks(step.job, versions[stem], finished, topic):
                    if steps[stem].failed is not None:
                        break  # what is with the cluster already is finished and counts; no more of this scan
                    yield task
            except Exception as error:
                steps[stem] = steps[stem].broken(error)

    tiles: dict[str, int] = dict.fromkeys(steps, 0)
    expected = sum(step.job.plan.predictions for step in lot)
    for results in queue.results(grouped(tasks(), queue.group_tiles(expected, lot[0].job.engine_spec.batch))):
        for result in results:
            if isinstance(result, BlockFailed) and steps[result.scan].failed is None:
                steps[result.scan] = steps[result.scan].broken(result.error)
            if isinstance(result, BlockDone):
                tiles[result.scan] += result.tiles

    def finish(step: Step) -> Step:
        versions[step.job.scan.stem].finish()
        share = tiles[step.job.scan.stem] / max(1, sum(tiles.values()))
        return step.after("colorize", (time.perf_counter() - started) * share)

    return _each(tuple(steps.values()), finish, 1)


def export_lot(lot: Lot) -> tuple[Outcome, ...]:
    """Zarr to the coloured TIFFs, and the JSONs that say what was done."""

    def work(step: Step) -> Step:
        started = time.perf_counter()
        threads = stream_threads() if len(lot) == 1 else 1
        finished = export_job(step.job, step.seconds, step.blocks_there, threads, started)
        return replace(step, seconds=finished)

    return tuple(step.failed or _outcome(step) for step in _each(lot, work, stream_threads()))


def _outcome(step: Step) -> Outcome:
    job = step.job
    picture = str(job.paths.picture)
    megapixels, tiles = job.info.megapixels, job.plan.tiles
    return Outcome(job.scan.stem, str(job.scan.path), "done", picture, megapixels, tiles, picture, step.seconds)
