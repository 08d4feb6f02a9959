"""The three stages of a batch of scans: ingest, colorize, export."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from flows.cluster.queue import BlockQueue
from flows.deadline import NO_DEADLINE, Deadline
from flows.events import StageBegan, tell, warn
from flows.outcome import ScanOutcome
from flows.run.batches import ScanBatch, ScanProgress, each_scan, is_large, stream_threads
from flows.run.colouring import Colouring
from flows.run.derived_colours import find_factors, make_hints, spread_hints
from flows.run.hint_tasks import after_prediction, hinted_job, predicted_job
from flows.run.jobs import ScanJob
from flows.run.predicted_colours import join_series, make_blocks, make_palettes, refine
from flows.run.publish import export_job
from flows.sheet.thumbnails import thumbnails
from pipeline.errors import StoreError
from pipeline.ingest import ingest, settle_store
from pipeline.results.sidecar import Sidecar
from pipeline.store import ScanStore

_log = logging.getLogger(__name__)
# Thumbnails are made one at a time: the plan has no memory for more of their windows.
_SHOWING = threading.Lock()


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
            threads = job.plan.stream_threads if is_large(batch) else 1
            source = job.source or job.files.source_of(job.scan.path, job.scan.page)
            ingest(job.scan.path, job.paths.store, source, job.force, threads, job.reading, job.metadata)
        return step.after("ingest", time.perf_counter() - started)

    return each_scan(batch, work, stream_threads(), deadline)


def colorize_batch(batch: ScanBatch, queue: BlockQueue, topic: str, deadline: Deadline = NO_DEADLINE) -> ScanBatch:
    """Chroma of every block that is missing, on the cluster. A batch's seconds are shared out by tiles."""
    started = time.perf_counter()
    colouring = Colouring(tuple(replace(step, job=predicted_job(step.job)) for step in batch), queue, topic, deadline)
    colouring.open_versions()
    find_factors(colouring)
    make_palettes(colouring)
    join_series(colouring)
    make_blocks(colouring)
    refine(colouring)
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
        colouring = Colouring(whole, queue, topic, deadline)
        colouring.open_versions()
        spread_hints(colouring)
        make_hints(colouring)
        colouring.finish()
        for stem, step in colouring.steps.items():
            steps[stem] = replace(
                step, job=steps[stem].job, blocks_there=min(step.blocks_there, steps[stem].blocks_there)
            )
    return tuple(steps.values())


def _share(step: ScanProgress) -> float:
    """Of a batch's work: tiles where they were predicted, megapixels where colours were made from others."""
    spec = step.job.spec
    is_derived = spec.grade is not None or (spec.is_hinted and step.blocks_there < step.job.plan.blocks)
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
        threads = step.job.plan.stream_threads if is_large(batch) else 1
        made = export_job(step.job, step.seconds, step.blocks_there, step.quality, threads, started)
        _show(step.job)
        warnings = (*made.warnings, *_of_holes(step.job))
        return replace(step, seconds=made.seconds, written=made.written, warnings=warnings)

    steps = each_scan(batch, work, stream_threads(), deadline)
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
