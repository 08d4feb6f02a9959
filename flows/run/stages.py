"""The three stages of a batch of scans: ingest, colorize, export.

Prefect sees batches. Small scans share one, so that five hundred postcards do not pay for five hundred starts; a large
scan has its own. A scan that fails drops out of its batch and says why, and the others go on. So does one that the
run's deadline leaves unfinished.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from engines.machine import processors
from flows.cluster.grade_blocks import FactorTask, GradeTask
from flows.cluster.hint_blocks import HintTask, SpreadTask
from flows.cluster.queue import BlockQueue, Result, grouped
from flows.cluster.worker import AnchorTask, BlockDone, BlockFailed, BlockTask, Reuse, chosen_tiles
from flows.deadline import NO_DEADLINE, Deadline
from flows.events import Message, StageBegan, TilesDone, tell, warn
from flows.outcome import ScanOutcome
from flows.run.grade_tasks import begin_grade, factor_tasks, grade_groups
from flows.run.hint_tasks import after_prediction, begin_hints, hint_groups, hinted_job, predicted_job, spread_tasks
from flows.run.jobs import ScanJob, grid_of
from flows.run.palette_copies import note_refused, take_palette
from flows.run.planning import failure
from flows.run.planning import stopped as stopped_before
from flows.run.publish import export_job
from flows.run.series import join_palettes
from flows.sheet.thumbnails import thumbnails
from pipeline.errors import PaletteCopyError, ScanUnreachableError, StoreError
from pipeline.ingest import ingest, settle_store
from pipeline.palettes.answers import Taste
from pipeline.planning.plan import STREAM_THREADS
from pipeline.quality.figures import Quality
from pipeline.quality.score import has_helped, levels_of, measure, tiles_to_add
from pipeline.results.run_spec import RunSpec, utc_now
from pipeline.results.sidecar import Sidecar
from pipeline.store import ChromaVersion, ScanStore
from pipeline.support.text import reason_of
from pipeline.types import Roi

_BATCH_MEGAPIXELS = 32.0
_BATCH_SCANS = 32
# What a network drive or a machine behind it says when it is away for a moment; and how long to wait before each try.
_PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EREMOTEIO,
    errno.ENOTCONN,
    errno.EAGAIN,
    errno.EBUSY,
}
_WAITS_SECONDS = (1.0, 5.0)
_log = logging.getLogger(__name__)
# Thumbnails are made one at a time: the plan has no memory for more of their windows.
_SHOWING = threading.Lock()


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


def _is_large(batch: ScanBatch) -> bool:
    """Whether its scans are read and written one at a time, each by many threads: the plan has memory for one."""
    return len(batch) == 1 or sum(step.job.info.megapixels for step in batch) > _BATCH_MEGAPIXELS


def is_passing(error: BaseException) -> bool:
    """Whether an error is, or comes from, one that a drive gives when it is away for a moment."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ScanUnreachableError) or (isinstance(seen, OSError) and seen.errno in _PASSING):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def trying_again(
    work: Callable[[], ScanProgress], scan: str, deadline: Deadline, waits: tuple[float, ...] = _WAITS_SECONDS
) -> ScanProgress:
    """Do ``work``, and repeat it after each of ``waits`` seconds while the drive is away; its last error is raised."""
    for seconds in waits:
        try:
            return work()
        except Exception as error:
            if deadline.is_over or not is_passing(error):
                raise
            warn(f"{scan}: {reason_of(error)}; tried again in {seconds:g} s", "again")
        deadline.pause(seconds)
    return work()


def _each(
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

    if _is_large(batch):
        return tuple(map(safely, batch))
    with ThreadPoolExecutor(threads) as pool:
        return tuple(pool.map(safely, batch))


def ingest_batch(batch: ScanBatch, deadline: Deadline = NO_DEADLINE) -> ScanBatch:
    """Scan files to Zarr; existing stores of the same bytes are kept."""

    def work(step: ScanProgress) -> ScanProgress:
        if deadline.is_over:
            return step.stopped(deadline)
        started, job = time.perf_counter(), step.job
        tell(StageBegan(job.scan.stem, "reading"))
        settle_store(job.paths.store)
        if job.is_ingested:
            if not ScanStore.open(job.paths.store).has_whole_scan():
                raise StoreError(f"{job.paths.store}: not all of the scan is there; use colorize-archive run")
        else:
            job.paths.store.parent.mkdir(parents=True, exist_ok=True)
            threads = job.plan.stream_threads if _is_large(batch) else 1
            source = job.source or job.files.source_of(job.scan.path, job.scan.page)
            ingest(job.scan.path, job.paths.store, source, job.force, threads, job.reading, job.metadata)
        return step.after("ingest", time.perf_counter() - started)

    return _each(batch, work, stream_threads(), deadline)


@dataclass(frozen=True)
class _Opened:
    """A version to work on, its blocks that are finished, and whether there is nothing to do."""

    version: ChromaVersion
    finished: set[tuple[int, int]]
    is_whole: bool = False


def _open_version(job: ScanJob) -> _Opened:
    """The version that the job makes, begun or new, and its blocks that are finished: all, of one that is whole.

    Raises
    ------
    StoreError : it is to be kept, and is not whole.
    """
    store = ScanStore.open(job.paths.store, writable=True)
    begun = store.find_version(job.spec.version)
    if begun is not None and not job.force and begun.is_whole():
        return _Opened(begun, set(_indices(job)), is_whole=True)
    if job.is_kept:
        raise StoreError(
            f"{job.paths.store}: the colours of {job.spec.version} are not whole any more, and this run has other "
            "settings; reprocess makes them again, --force those of this run"
        )
    if begun is not None and not job.force and begun.block_px == job.plan.block_px:
        begun.remove_unfinished()
        return _Opened(begun, begun.finished_blocks())
    made = store.create_version(
        name=job.spec.version,
        settings=job.spec.to_json(),
        block_px=job.plan.block_px,
        scale_factor=job.chroma_scale,
        created=utc_now(),
        levels=levels_of(job.grid) if job.spec.quality else 1,
    )
    return _Opened(made, set())


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


def _indices(job: ScanJob) -> Iterator[tuple[int, int]]:
    rows, columns = job.grid.block_counts_yx(job.plan.block_px)
    return ((y, x) for y in range(rows) for x in range(columns))


def _tasks(job: ScanJob, version: ChromaVersion, finished: set[tuple[int, int]], topic: str) -> Iterator[BlockTask]:
    # Where all is there, a version whose tiles were taken over may be gone.
    task = _task(job, version, topic) if any(index not in finished for index in _indices(job)) else None
    for index in _indices(job):
        if task is None or index in finished:
            tiles = len(job.grid.block(index, job.plan.block_px).tile_origins)
            tell(TilesDone(job.scan.stem, tiles, are_new=False))
        else:
            yield replace(task, index_yx=index)


class _Colouring:
    """A batch on the cluster: what has become of its scans so far."""

    def __init__(self, batch: ScanBatch, queue: BlockQueue, topic: str, deadline: Deadline) -> None:
        self.steps = {step.job.scan.stem: step for step in batch}
        self._queue = queue
        self._topic = topic
        self._deadline = deadline
        self._missing: dict[str, int] = {}
        self._opened: dict[str, _Opened] = {}
        self._predictions = sum(step.job.plan.predictions for step in batch)

    def _try(self, work: Callable[[ScanProgress], None]) -> None:
        """Do ``work`` for every scan that has not ended; what it raises is that scan's failure."""
        for stem, step in list(self.steps.items()):
            if step.ended is None:
                try:
                    work(step)
                except Exception as error:
                    self.steps[stem] = self.steps[stem].ended_by(error, self._deadline)

    def _collect(self, results: Iterable[list[BlockDone | BlockFailed]]) -> None:
        for result in (result for batch in results for result in batch):
            step = self.steps[result.scan]
            if isinstance(result, BlockFailed) and step.ended is None:
                self.steps[result.scan] = step.ended_by(result.error, self._deadline)
            if isinstance(result, BlockDone):
                self.steps[result.scan] = replace(step, tiles=step.tiles + result.tiles)

    def open_versions(self) -> None:
        """Begin every scan's version, or go on with it."""

        def work(step: ScanProgress) -> None:
            stem = step.job.scan.stem
            tell(StageBegan(stem, "colouring"))
            self._opened[stem] = opened = _open_version(step.job)
            if self._is_graded(step):
                begin_grade(step.job, opened.version)
            if self._is_hinted(step):
                begin_hints(step.job, opened.version)
            self.steps[stem] = replace(step, blocks_there=len(opened.finished))
            self._missing[stem] = step.job.plan.blocks - len(opened.finished)

        self._try(work)

    def _is_graded(self, step: ScanProgress) -> bool:
        """Whether the scan has blocks to make of colours that are there."""
        return step.job.spec.grade is not None and not self._opened[step.job.scan.stem].is_whole

    def _is_hinted(self, step: ScanProgress) -> bool:
        """Whether the scan has blocks to make of colours that hints correct."""
        return step.job.spec.is_hinted and not self._opened[step.job.scan.stem].is_whole

    def spread_hints(self) -> None:
        """The look at every scan that has hints; all its blocks need it."""
        tasks: list[SpreadTask] = []

        def work(step: ScanProgress) -> None:
            if self._is_hinted(step):
                tasks.extend(spread_tasks(step.job, self._opened[step.job.scan.stem].version))

        self._try(work)
        self._collect(self._queue.spreads((task,) for task in tasks))

    def make_hints(self) -> None:
        """Every block that is missing of colours that hints correct."""

        def groups() -> Iterator[tuple[HintTask, ...]]:
            for stem, step in list(self.steps.items()):
                if step.ended is None and self._is_hinted(step):
                    opened = self._opened[stem]
                    yield from hint_groups(step.job, opened.version, opened.finished, self._topic)

        self._follow(self._queue.hints(groups()))

    def find_factors(self) -> None:
        """The factor of every scan that is to reach a colourfulness; all its blocks need it."""
        tasks: list[FactorTask] = []

        def work(step: ScanProgress) -> None:
            if self._is_graded(step):
                tasks.extend(factor_tasks(step.job, self._opened[step.job.scan.stem].version))

        def say(step: ScanProgress) -> None:
            if self._is_graded(step) and (factor := self._opened[step.job.scan.stem].version.factor) is not None:
                tell(Message(f"{step.job.scan.stem}: chroma times {factor:.2f} for {step.job.spec.grade}", "factor"))

        self._try(work)
        self._collect(self._queue.factors((task,) for task in tasks))
        self._try(say)

    def make_grades(self) -> None:
        """Every block that is missing of colours that are made from others."""

        def groups() -> Iterator[tuple[GradeTask, ...]]:
            for stem, step in list(self.steps.items()):
                if step.ended is None and self._is_graded(step):
                    opened = self._opened[stem]
                    yield from grade_groups(step.job, opened.version, opened.finished, self._topic)

        self._follow(self._queue.grades(groups()))

    def make_anchors(self) -> None:
        """The palette of every scan that has one; all blocks need it."""
        tasks: list[AnchorTask] = []

        def work(step: ScanProgress) -> None:
            job, opened = step.job, self._opened[step.job.scan.stem]
            version = opened.version
            is_series = job.series is not None
            if version.has_anchor or opened.is_whole or (is_series and version.reading() is not None):
                return
            if job.copy is not None:
                # Here and not on the cluster, whose machines may not see the folder of copies.
                try:
                    take_palette(ScanStore.open(job.paths.store), version, job.copy)
                except PaletteCopyError as error:
                    if job.without_copy is None:
                        raise
                    self._go_on_without_copy(step, error)
                    if self.steps[job.scan.stem].ended is None:
                        work(self.steps[job.scan.stem])
            elif job.anchor_spec is not None:
                taste = Taste(job.spec.vivid, job.spec.cautious)
                names = job.scan.stem, job.paths.store, version.name, version.attempt
                tasks.append(AnchorTask(*names, job.anchor_spec, taste, is_series))

        self._try(work)
        share = max(1, len(tasks) // (2 * self._queue.threads()))
        self._collect(self._queue.anchors(tuple(tasks[i : i + share]) for i in range(0, len(tasks), share)))

    def _go_on_without_copy(self, step: ScanProgress, error: PaletteCopyError) -> None:
        """What a run does with a scan whose copy is refused, where it was asked to be lenient."""
        job, stem = step.job, step.job.scan.stem
        alone = job.without_copy
        assert job.copy is not None, "it is refused"
        assert alone is not None, "the run is lenient"
        warn(f"{error}; coloured by the model alone", "lenient")
        note_refused(job.paths.store, job.copy, str(error))
        ScanStore.open(job.paths.store, writable=True).remove_version(job.spec.version)
        if isinstance(alone, ScanOutcome):
            self.steps[stem] = replace(step, ended=alone)
            return
        self._opened[stem] = opened = _open_version(alone)
        self.steps[stem] = replace(step, job=alone, blocks_there=len(opened.finished))
        self._missing[stem] = alone.plan.blocks - len(opened.finished)

    def join_series(self) -> None:
        """The palettes of the batch's series, whose scans have been looked at."""
        working = [step for step in self.steps.values() if step.ended is None and step.job.series is not None]
        lacking = {
            step.job.scan.stem: self._opened[step.job.scan.stem].version
            for step in working
            if not self._opened[step.job.scan.stem].is_whole and not self._opened[step.job.scan.stem].version.has_anchor
        }
        if not lacking:
            return
        series = working[0].job.series
        assert series is not None
        try:
            join_palettes(series, working[0].job.output, lacking)
        except Exception as error:
            for stem in lacking:
                self.steps[stem] = self.steps[stem].ended_by(error, self._deadline)

    def make_blocks(self) -> None:
        """Every block that is missing, of the grid that was asked for."""

        def tasks() -> Iterator[BlockTask]:
            for stem, step in list(self.steps.items()):
                if step.ended is not None or self._is_graded(step):
                    continue
                try:
                    for task in _tasks(step.job, self._opened[stem].version, self._opened[stem].finished, self._topic):
                        if self.steps[stem].ended is not None:
                            break  # what is with the cluster already is finished and counts; no more of this scan
                        yield task
                except Exception as error:
                    self.steps[stem] = self.steps[stem].ended_by(error, self._deadline)

        self._run(tasks())

    def refine(self) -> None:
        """Add finer tiles where a quality was asked for and is not there yet, level by level."""
        level, more = 1, True
        while more:
            tasks: dict[str, list[BlockTask]] = {}
            self._try(partial(self._add_level, level, tasks))
            more = bool(tasks)
            self._run(task for stem in tasks for task in tasks[stem] if self.steps[stem].ended is None)
            level += 1

    def _add_level(self, level: int, tasks: dict[str, list[BlockTask]], step: ScanProgress) -> None:
        """Tasks of a scan's next refinement, where there is one; none where all its blocks are there."""
        job, opened = step.job, self._opened[step.job.scan.stem]
        version = opened.version
        if not job.spec.quality or opened.is_whole or self._is_graded(step):
            return
        if level <= version.levels_chosen + 1 and _choose(job, version, level):
            tasks[job.scan.stem] = list(_refining(job, version, level, self._topic))
            self._missing[job.scan.stem] = len(tasks[job.scan.stem])

    def finish(self) -> None:
        """Mark the versions complete, and measure them."""

        def work(step: ScanProgress) -> None:
            stem, job = step.job.scan.stem, step.job
            version = self._opened[stem].version
            version.finish()
            store = ScanStore.open(job.paths.store)
            quality = measure(store, version, job.grid, job.spec.quality)
            self.steps[stem] = replace(step, quality=quality)

        self._try(work)

    def _run(self, tasks: Iterator[BlockTask]) -> None:
        batch = next((spec.batch for step in self.steps.values() if (spec := step.job.engine_spec)), 1)
        self._follow(self._queue.results(grouped(tasks, self._queue.group_tiles(self._predictions, batch))))

    def _follow(self, results: Iterable[list[Result]]) -> None:
        """Collect what blocks come to; what the deadline has left is stopped."""
        self._collect(self._made(results))
        if self._deadline.is_over:
            for stem, missing in self._missing.items():
                if missing and self.steps[stem].ended is None:
                    self.steps[stem] = self.steps[stem].stopped(self._deadline, missing)

    def _made(self, results: Iterable[list[BlockDone | BlockFailed]]) -> Iterator[list[BlockDone | BlockFailed]]:
        """The results unchanged, with each finished block subtracted from the missing ones."""
        for batch in results:
            for result in batch:
                if isinstance(result, BlockDone):
                    self._missing[result.scan] -= 1
            yield batch


def _choose(job: ScanJob, version: ChromaVersion, level: int) -> bool:
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


def _refining(job: ScanJob, version: ChromaVersion, level: int, topic: str) -> Iterator[BlockTask]:
    """Tasks of the blocks that have tiles of this level and not yet their colours."""
    finished = version.finished_blocks(level)
    task = _task(job, version, topic)
    for index in _indices(job):
        at_level = replace(task, index_yx=index, level=level)
        if index not in finished and chosen_tiles(version, at_level, level):
            yield at_level


def colorize_batch(batch: ScanBatch, queue: BlockQueue, topic: str, deadline: Deadline = NO_DEADLINE) -> ScanBatch:
    """Chroma of every block that is missing, on the cluster. A batch's seconds are shared out by tiles."""
    started = time.perf_counter()
    colouring = _Colouring(tuple(replace(step, job=predicted_job(step.job)) for step in batch), queue, topic, deadline)
    colouring.open_versions()
    colouring.find_factors()
    colouring.make_grades()
    colouring.make_anchors()
    colouring.join_series()
    colouring.make_blocks()
    colouring.refine()
    colouring.finish()
    steps = _hinted(batch, colouring.steps, queue, topic, deadline)
    seconds, whole = time.perf_counter() - started, sum(map(_share, steps)) or 1.0
    return tuple(step if step.ended else step.after("colorize", seconds * _share(step) / whole) for step in steps)


def _hinted(
    batch: ScanBatch, predicted: Mapping[str, ScanProgress], queue: BlockQueue, topic: str, deadline: Deadline
) -> ScanBatch:
    """The scans whose colours are there, those with hints after these were applied."""
    steps = {}
    for step in batch:
        done = predicted[step.job.scan.stem]
        steps[step.job.scan.stem] = replace(done, job=after_prediction(step.job, done.job))
    with_hints = {stem: step for stem, step in steps.items() if step.job.spec.is_hinted and step.ended is None}
    if with_hints:
        whole = tuple(replace(step, job=hinted_job(step.job)) for step in with_hints.values())
        colouring = _Colouring(whole, queue, topic, deadline)
        colouring.open_versions()
        colouring.spread_hints()
        colouring.make_hints()
        colouring.finish()
        for stem, step in colouring.steps.items():
            steps[stem] = replace(
                step, job=steps[stem].job, blocks_there=min(step.blocks_there, steps[stem].blocks_there)
            )
    return tuple(steps.values())


def _share(step: ScanProgress) -> float:
    """Of a batch's work: tiles where they were predicted, megapixels where colours were made from others."""
    spec = step.job.spec
    is_derived = (spec.grade is not None or spec.is_hinted) and step.blocks_there < step.job.plan.blocks
    return step.tiles or step.job.info.megapixels if is_derived else step.tiles


def export_batch(batch: ScanBatch, deadline: Deadline = NO_DEADLINE) -> tuple[ScanOutcome, ...]:
    """Zarr to the coloured TIFFs, and the JSONs that say what was done; also after the end, where all blocks are there.

    The picture of a scan that is coloured costs little beside what it took to get there, and is what the night was for.
    """

    def work(step: ScanProgress) -> ScanProgress:
        if deadline.is_cancelled:
            return step.stopped(deadline, 0)
        started = time.perf_counter()
        tell(StageBegan(step.job.scan.stem, "writing"))
        threads = step.job.plan.stream_threads if _is_large(batch) else 1
        made = export_job(step.job, step.seconds, step.blocks_there, step.quality, threads, started)
        _show(step.job)
        warnings = (*made.warnings, *_of_holes(step.job))
        return replace(step, seconds=made.seconds, written=made.written, warnings=warnings)

    steps = _each(batch, work, stream_threads(), deadline)
    for warning in (warning for step in steps for warning in step.warnings):
        warn(warning)
    return tuple(step.ended or _outcome(step) for step in steps)


def _show(job: ScanJob) -> None:
    """Make the thumbnails now, while the scan's shards are still in memory, and not after the end of the time.

    The contact sheet makes those that are missing then, and says what is wrong with them.
    """
    with _SHOWING, _logged(f"{job.scan.path}: no thumbnails"):
        thumbnails(job.output, job.scan.stem, Sidecar.read(job.paths.sidecar))


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """What goes wrong in the body is for the log alone."""
    try:
        yield
    except Exception:
        _log.warning("%s", what, exc_info=True)


def _of_holes(job: ScanJob) -> Iterator[str]:
    if holes := ScanStore.open(job.paths.store).missing_regions:
        pixels = sum(hole.shape_yx[0] * hole.shape_yx[1] for hole in holes)
        share = 100 * pixels / (job.info.shape_yx[0] * job.info.shape_yx[1])
        share_text = "less than 1" if share < 1 else f"{share:.0f}"
        yield f"{job.scan.path}: {share_text} % of it could not be read and is plain gray; the JSON says where"


def _outcome(step: ScanProgress) -> ScanOutcome:
    job = step.job
    picture = str(job.paths.picture((step.written or job.formats)[0]))
    return ScanOutcome(
        scan=job.scan.stem,
        path=str(job.scan.path),
        status="done",
        message=picture,
        megapixels=job.info.megapixels,
        tiles=step.quality.tiles if step.quality else job.plan.tiles,
        result=picture,
        seconds=step.seconds,
        quality=step.quality,
        version=job.spec.version,
        warnings=step.warnings,
        page=job.scan.page,
    )
