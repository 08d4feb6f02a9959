"""Steps of a batch whose colours networks predict: palettes first, then blocks, then finer tiles."""

from __future__ import annotations

from collections.abc import Iterator

from flows.cluster.queue import grouped
from flows.cluster.worker import AnchorTask, BlockTask
from flows.events import warn
from flows.outcome import ScanOutcome
from flows.run.batches import ScanProgress
from flows.run.colouring import Colouring
from flows.run.palette_copies import note_refused, take_palette
from flows.run.series import join_palettes
from flows.run.tile_tasks import choose_tiles, refining_tasks, tile_tasks
from pipeline.errors import PaletteCopyError
from pipeline.palettes.answers import Taste
from pipeline.store import ScanStore


def make_palettes(colouring: Colouring) -> None:
    """The palette of every scan that has one; all blocks need it."""
    tasks: list[AnchorTask] = []

    def work(step: ScanProgress) -> None:
        job, opened = step.job, colouring.opened(step)
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
                alone = _without_copy(colouring, step, error)
                if alone.ended is None:
                    work(alone)
        elif job.anchor_spec is not None:
            taste = Taste(job.spec.vivid, job.spec.cautious, job.spec.answer)
            names = job.scan.stem, job.paths.store, version.name, version.attempt
            tasks.append(AnchorTask(*names, job.anchor_spec, taste, is_series))

    colouring.each(work)
    share = max(1, len(tasks) // (2 * colouring.queue.threads()))
    shares = (tuple(tasks[i : i + share]) for i in range(0, len(tasks), share))
    colouring.collect(colouring.queue.anchors(shares))


def _without_copy(colouring: Colouring, step: ScanProgress, error: PaletteCopyError) -> ScanProgress:
    """A scan whose copy is refused, after what a lenient run does with it."""
    job, stem = step.job, step.job.scan.stem
    alone = job.without_copy
    assert job.copy is not None, "it is refused"
    assert alone is not None, "the run is lenient"
    warn(f"{error}; coloured by the model alone", "lenient")
    note_refused(job.paths.store, job.copy, str(error))
    ScanStore.open(job.paths.store, writable=True).remove_version(job.spec.version)
    if isinstance(alone, ScanOutcome):
        colouring.end(stem, alone)
    else:
        colouring.begin(step, alone)
    return colouring.steps[stem]


def join_series(colouring: Colouring) -> None:
    """The palettes of the batch's series, whose scans have been looked at."""
    working = [step for step in colouring.working() if step.job.series is not None]
    lacking = {
        step.job.scan.stem: colouring.version(step)
        for step in working
        if not colouring.opened(step).is_whole and not colouring.version(step).has_anchor
    }
    if not lacking:
        return
    series = working[0].job.series
    assert series is not None
    try:
        join_palettes(series, working[0].job.output, lacking)
    except Exception as error:
        for stem in lacking:
            colouring.fail(stem, error)


def make_blocks(colouring: Colouring) -> None:
    """Every block that is missing, of the grid that was asked for."""

    def tasks() -> Iterator[BlockTask]:
        for step in colouring.working():
            stem = step.job.scan.stem
            if colouring.steps[stem].ended is not None or colouring.is_graded(step):
                continue
            opened = colouring.opened(step)
            try:
                for task in tile_tasks(step.job, opened.version, opened.finished, colouring.topic):
                    if colouring.steps[stem].ended is not None:
                        break  # what is with the cluster already is finished and counts; no more of this scan
                    yield task
            except Exception as error:
                colouring.fail(stem, error)

    _predict(colouring, tasks())


def refine(colouring: Colouring) -> None:
    """Add finer tiles where a quality was asked for and is not there yet, level by level."""
    level, more = 1, True
    while more:
        tasks = _refining(colouring, level)
        more = bool(tasks)
        _predict(colouring, (task for stem in tasks for task in tasks[stem] if colouring.steps[stem].ended is None))
        level += 1


def _refining(colouring: Colouring, level: int) -> dict[str, list[BlockTask]]:
    """Tasks of each scan's next refinement, where there is one; none where all its blocks are there."""
    tasks: dict[str, list[BlockTask]] = {}

    def work(step: ScanProgress) -> None:
        job, opened = step.job, colouring.opened(step)
        version = opened.version
        if not job.spec.quality or opened.is_whole or colouring.is_graded(step):
            return
        if level <= version.levels_chosen + 1 and choose_tiles(job, version, level):
            tasks[job.scan.stem] = list(refining_tasks(job, version, level, colouring.topic))
            colouring.expect(job.scan.stem, len(tasks[job.scan.stem]))

    colouring.each(work)
    return tasks


def _predict(colouring: Colouring, tasks: Iterator[BlockTask]) -> None:
    specs = (step.job.engine_spec for step in colouring.steps.values())
    batch = next((spec.batch for spec in specs if spec), 1)
    queue = colouring.queue
    colouring.follow(queue.results(grouped(tasks, queue.group_tiles(colouring.predictions, batch))))
