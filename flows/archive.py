"""The flow ``colorize-archive``: many scans, each ingested, coloured and exported.

Prefect sees lots of scans and their stages; Dask sees blocks. Stages of different lots overlap: while one is coloured,
the next is ingested and the one before exported. A scan that fails never stops the others. A run ends before its work
does where its time is up or where somebody cancels it: blocks that were begun are finished, or made again by the next
run, which goes on from there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows import parameters
from flows.bookkeeping import keeping_books
from flows.budget import Budget
from flows.catalogue import Catalogue
from flows.catalogue_results import stamp
from flows.cluster import open_cluster
from flows.endings import CANCELLED, ended, name_of, told
from flows.inputs import Aside, find_scans
from flows.jobs import Job, Outcome, Prepared, prepare_output
from flows.limits import limit_of, slot
from flows.nightly import History
from flows.page import followed
from flows.planning import failure, plan_scans
from flows.progress import listener
from flows.scheduling import BlockQueue
from flows.settings import RunOptions, parse_options
from flows.sheet import write_sheet
from flows.stages import Lot, colorize_lot, export_lot, ingest_lot, lot_name, lots, stopped
from pipeline.errors import OutputError, UsageError
from pipeline.files import folder_lock, write_json, writing
from pipeline.manifest import utc_now

_STAGES_AT_ONCE = 3
# Enough that every thread of the stages finds its next piece of work.
_LOTS_SUBMITTED = _STAGES_AT_ONCE + 2
_CANCEL_SECONDS = 12.0
_queues: list[BlockQueue] = []
Plan = Callable[[Prepared, History, Budget], list[Job | Outcome]]
Complete = Callable[[Outcome], Outcome]
NOTHING_ASIDE = Aside()


@task(name="ingest", task_run_name="ingest {name}", cache_policy=NO_CACHE, persist_result=False)
def ingest_scans(lot: Lot, name: str) -> Lot:
    """Scan files to Zarr."""
    return ingest_lot(lot, _queues[-1].budget)


@task(name="colorize", task_run_name="colorize {name}", cache_policy=NO_CACHE, persist_result=False)
def colorize_scans(lot: Lot, name: str, topic: str, limit: str | None) -> Lot:
    """Chroma of every block, on the cluster that is open, as soon as the limit that all runs share lets it."""
    queue = _queues[-1]
    with slot(limit, name, queue.budget):
        return colorize_lot(lot, queue, topic, queue.budget)


@task(name="export", task_run_name="export {name}", cache_policy=NO_CACHE, persist_result=False)
def export_scans(lot: Lot, name: str) -> tuple[Outcome, ...]:
    """Zarr to the coloured TIFFs and their sidecars."""
    return export_lot(lot, _queues[-1].budget)


def _tell_tiles(event: tuple[float, dict[str, Any]]) -> None:
    _, what = event
    listener().predicted(what["scan"], what["tiles"])


def _outcomes(lot: Lot, futures: list[PrefectFuture[Any]]) -> tuple[Outcome, ...]:
    """Wait for a lot's stages. One that broke off as a whole is a failure of each of its scans, and none's fault."""
    for future in futures:
        future.wait()
        if not future.state.is_completed():
            error = future.state.result(raise_on_failure=False)
            reason = error if isinstance(error, BaseException) else RuntimeError(str(error))
            return tuple(replace(failure(step.job.scan, reason), is_scans_fault=False) for step in lot)
    outcomes: tuple[Outcome, ...] = futures[-1].result()
    return outcomes


def run_jobs(jobs: list[Job], prepared: Prepared, budget: Budget) -> Generator[Outcome]:
    """Submit every lot's stages and give the outcomes as they come, in order."""
    options = prepared.options
    engine = jobs[0].engine_spec
    with open_cluster(jobs[0].workers, options.cluster, options.limit_memory_bytes, engine) as client:
        topic = f"colorize-archive-{uuid.uuid4().hex}"
        client.subscribe_topic(topic, _tell_tiles)
        queue = BlockQueue(client, budget=budget)
        _queues.append(queue)
        try:
            with budget.at_end(queue.take_back):
                yield from _run_lots(list(lots(jobs)), queue, topic, limit_of(prepared))
        finally:
            _queues.pop()


def _submitted(lot: Lot, topic: str, limit: str | None) -> list[PrefectFuture[Any]]:
    name = lot_name(lot)
    ingested = ingest_scans.submit(lot, name)
    coloured = colorize_scans.submit(ingested, name, topic, limit)  # type: ignore[call-overload]
    return [ingested, coloured, export_scans.submit(coloured, name)]


def _run_lots(every: list[Lot], queue: BlockQueue, topic: str, limit: str | None) -> Generator[Outcome]:
    """Only some lots are with Prefect at a time: what it does not know of ends at once when the budget does."""
    for lot in every:
        for step in lot:
            listener().planned(step.job.scan.stem, step.job.plan.predictions, step.job.info.megapixels, lot_name(lot))
    waiting, running = deque(every), deque[tuple[Lot, list[PrefectFuture[Any]]]]()
    try:
        while waiting or running:
            while waiting and len(running) < _LOTS_SUBMITTED and not queue.budget.is_over:
                running.append((lot := waiting.popleft(), _submitted(lot, topic, limit)))
            if running:
                yield from _outcomes(*running[0])
                running.popleft()
            else:
                yield from (stopped(step.job, queue.budget) for step in waiting.popleft())
    except (KeyboardInterrupt, TerminationSignal, GeneratorExit):
        queue.budget.cancel()
        queue.take_back()
        _wait_for([future for _, futures in running for future in futures])
        raise


def _wait_for(futures: list[PrefectFuture[Any]]) -> None:
    """Let stages that were cancelled end their piece of work, for a while: Prefect kills the process after 30 s."""
    deadline = time.monotonic() + _CANCEL_SECONDS
    for future in futures:
        future.wait(timeout=max(0.0, deadline - time.monotonic()))


def run_planned(
    planned: list[Job | Outcome], prepared: Prepared, budget: Budget, history: History, complete: Complete
) -> Generator[Outcome]:
    """What is skipped or failed already, and then the rest as it is done; each is told of, as ``complete`` makes it."""
    with contextlib.ExitStack() as stack:
        known = [p for p in planned if isinstance(p, Outcome)]
        jobs = history.in_order(p for p in planned if isinstance(p, Job))
        worked = stack.enter_context(closing(run_jobs(jobs, prepared, budget))) if jobs else ()
        for outcome in map(complete, map(history.judged, itertools.chain(known, worked))):
            listener().finished(outcome)
            yield outcome


def record_of(output: Path, started: str) -> Path:
    """Where a run of this process keeps its record; its name is the run's in the catalogue too."""
    return output / "runs" / f"{stamp(started)}-{os.getpid()}.json"


def write_run(
    path: Path,
    kind: str,
    started: str,
    prepared: Prepared,
    outcomes: list[Outcome],
    state: str,
    aside: Aside,
) -> Path:
    """Write the run's own record, every scan with what became of it, and the name of the state that it ended in."""
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    record = {
        "kind": kind,
        "started": started,
        "finished": utc_now(),
        "state": state,
        "engine": str(prepared.choice),
        "backend": prepared.choice.backend,
        "precision": prepared.choice.precision,
        "model": prepared.model.card.name,
        "model_sha256": prepared.model.card.sha256,
        **aside.to_json(),
        "scans": [outcome.to_json() for outcome in outcomes],
    }
    write_json(path, record)
    return path


def run_in(
    options: RunOptions,
    plan: Plan,
    kind: str = "colorize",
    complete: Complete = lambda outcome: outcome,
    aside: Aside = NOTHING_ASIDE,
) -> State[Any]:
    """Plan and do a run in the output folder, which nobody else may use meanwhile; returns the state it ends in.

    ``complete`` may add to what became of a scan before anybody hears of it; ``aside`` is told beside the scans.
    """
    began = time.monotonic()
    prepared = Prepared.of(options)
    try:
        prepare_output(options.output)
    except OutputError as error:
        raise UsageError(str(error)) from error
    with folder_lock(options.output), followed(options.output) as page:
        listener().said(str(prepared.choice))
        for line in aside.lines:
            listener().said(line)
        try:
            outcomes, record = _do(prepared, plan, kind, complete, aside)
        except (KeyboardInterrupt, TerminationSignal, OutputError):
            _write_sheet(options.output)
            raise
        _write_sheet(options.output)
        if page is not None:
            page.show_results(outcomes, name_of(outcomes), record, time.monotonic() - began, aside.lines)
        return ended(outcomes, record, aside)


def _do(prepared: Prepared, plan: Plan, kind: str, complete: Complete, aside: Aside) -> tuple[list[Outcome], Path]:
    """Plan and do the work, and keep the catalogue; what became of all scans, and the run's record."""
    started, options = utc_now(), prepared.options
    budget = Budget(options.until)
    record = record_of(options.output, started)
    engine, model = str(prepared.choice), prepared.model.card.name
    with keeping_books(record, kind, started, engine, model) as files:
        history = History.of(options, files.scans())
        planned = plan(replace(prepared, files=files), history, budget)
        outcomes: list[Outcome] = []
        try:
            with closing(run_planned(planned, prepared, budget, history, complete)) as done:
                for outcome in done:
                    outcomes.append(outcome)
        except (KeyboardInterrupt, TerminationSignal):
            budget.cancel()
            outcomes += _left(planned, outcomes, budget)
            write_run(record, kind, started, prepared, outcomes, CANCELLED, aside)
            raise
        write_run(record, kind, started, prepared, outcomes, name_of(outcomes), aside)
        return outcomes, record


def _write_sheet(output: Path) -> None:
    """The contact sheet; what goes wrong with it is a line, because the results are there."""
    try:
        with Catalogue.open(output, is_locked=True) as catalogue:
            write_sheet(output, catalogue)
    except Exception as error:  # whatever it is
        listener().said(f"warning  no contact sheet ({' '.join(str(error).split())}); colorize-archive sheet makes it")


def _left(planned: list[Job | Outcome], outcomes: list[Outcome], budget: Budget) -> list[Outcome]:
    """The scans of which nothing was heard before the run was cancelled."""
    told = {(outcome.scan, outcome.path) for outcome in outcomes}
    jobs = [p for p in planned if isinstance(p, Job)]
    return [stopped(job, budget) for job in jobs if (job.scan.stem, str(job.scan.path)) not in told]


def due() -> datetime | None:
    """When the run that this is was to start, where Prefect knows it.

    From then on its time counts: one that comes late, or goes on after it was broken off, gets no second night.
    """
    when = flow_run.scheduled_start_time  # pendulum's own kind of time
    return None if when is None else min(datetime.fromtimestamp(when.timestamp(), UTC), datetime.now(UTC))


STAGE_RUNNER: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=_STAGES_AT_ONCE)


@flow(name="colorize-archive", task_runner=STAGE_RUNNER, persist_result=False)  # type: ignore[arg-type]
def colorize_archive(
    inputs: parameters.Inputs,
    output: parameters.Output,
    tile: parameters.Tile = 256,
    stride: parameters.Stride = None,
    window: parameters.WindowName = "hann",
    engine: parameters.Engine = "auto",
    model: parameters.ModelName = "default",
    workers: parameters.Workers = "auto",
    cluster: parameters.Cluster = "local",
    scheduler: parameters.Scheduler = None,
    tls_ca: parameters.TlsCa = None,
    tls_cert: parameters.TlsCert = None,
    tls_key: parameters.TlsKey = None,
    limit_memory: parameters.LimitMemory = "2GiB",
    keep: parameters.Keep = 2,
    force: parameters.Force = False,
    anchor: parameters.Anchor = True,
    quality: parameters.Quality = None,
    precision: parameters.Precision = "auto",
    formats: parameters.Formats = "tiff",
    metadata: parameters.Metadata = True,
    pages: parameters.Pages = "all",
    salvage: parameters.Salvage = False,
    until: parameters.Until = None,
    quarantine_after: parameters.QuarantineAfter = 3,
    retry_quarantined: parameters.RetryQuarantined = False,
) -> State[Any]:
    """Colour black-and-white scans.

    Parameters
    ----------
    inputs : files, folders or globs
    output : folder for the results
    tile : tile size in pixels: 256, 2048x4096 (height x width) or "whole"
    stride : pixels between tiles; half a tile if not given
    window : weights where tiles overlap: average, hann, triangle, gaussian
    engine : auto, or a backend such as tensorrt, openvino, onnxruntime, identity
    model : shipped model by name, or a model folder
    workers : worker processes, or auto
    cluster : local, or cuda for one worker a GPU
    scheduler : address or scheduler file of a Dask cluster that is already there
    tls_ca, tls_cert, tls_key : PEM files for a scheduler with TLS
    limit_memory : most memory that all processes together are planned to use
    keep : versions of a scan's colours that stay, the new one among them
    force : colour scans again whose result is there
    anchor : take the palette from the whole scan, so that its tiles agree
    quality : seam score to reach, such as 1.05, by finer tiles where tiles disagree; stride is then the coarsest
    precision : auto, fp32, bf16, fp16 or int8: what the engine computes in
    formats : of the pictures: tiff, cog, omezarr, jp2, iiif, png, jpeg, or several with commas between
    metadata : carry over what the scan says beside its pixels
    pages : of files that have several: all, or numbers such as 1,3-5
    salvage : colour damaged scans too; what cannot be read is plain gray and listed
    until : when to end, at a block: 06:00 (local time), +90m or an ISO 8601 time; the next run goes on
    quarantine_after : failures in a row after which later runs leave a scan out until its file changes; 0 is never
    retry_quarantined : try every scan, whatever became of it in earlier runs
    """

    def run() -> State[Any]:
        options = parse_options(
            output,
            tile,
            stride,
            window,
            engine,
            model,
            workers,
            limit_memory,
            keep,
            force,
            anchor,
            quality,
            precision,
            formats,
            metadata,
            pages,
            salvage,
            until,
            quarantine_after,
            retry_quarantined,
            cluster=cluster,
            scheduler=scheduler,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
            now=due(),
        )
        found = find_scans(inputs)

        def plan(prepared: Prepared, history: History, budget: Budget) -> list[Job | Outcome]:
            return plan_scans(found.scans, prepared, history.held_back, budget)

        return run_in(options, plan, aside=found.aside)

    return told(run)
