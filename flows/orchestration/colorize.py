"""The flow ``colorize-archive``: many scans, each ingested, coloured and exported.

Prefect sees batches of scans and their stages; Dask sees blocks. Stages of different batches overlap: while one is
coloured, the next is ingested and the previous one exported. A scan that fails never stops the others. A run stops
early at its deadline or when somebody cancels it: blocks that were begun are finished, or made again by the next run,
which resumes from there.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from contextvars import ContextVar
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

from engines.errors import EngineError
from engines.spec import PALETTE
from flows.catalogue.database import Catalogue
from flows.catalogue.rebuild import stamp
from flows.catalogue.recorder import recording
from flows.cluster.dask_cluster import open_cluster
from flows.cluster.queue import BlockQueue
from flows.deadline import Deadline, command_given
from flows.events import Message, ScanFinished, ScanPlanned, TilesDone, listening, tell, warn
from flows.inputs import SearchReport, find_scans
from flows.options import RunOptions, parse_options
from flows.orchestration import parameters
from flows.orchestration.limits import limit_of, slot
from flows.orchestration.progress_page import following
from flows.orchestration.states import BrokeOffError, as_run_state, ended, name_of
from flows.orchestration.task_runs import close_own_task_runs, close_task_runs_left
from flows.outcome import CANCELLED, ScanOutcome
from flows.request import RunRequest
from flows.run.jobs import RunContext, ScanJob, prepare_output
from flows.run.planning import naming_log, plan_scans
from flows.run.retry_policy import RetryPolicy
from flows.run.run_log import LoggedListener, in_one_line, logging_to
from flows.run.stages import ScanBatch, batch_name, colorize_batch, export_batch, ingest_batch, scan_batches, stopped
from flows.run.temporary_folder import see_to_temporary_files
from flows.sheet.contact_sheet import write_sheet
from pipeline.errors import ColorizeError, OutputError, UsageError
from pipeline.results.run_spec import utc_now
from pipeline.support.files import folder_lock, write_json, writing
from pipeline.support.names import shown
from pipeline.support.text import reason_of

_STAGES_AT_ONCE = 3
# Enough that every stage thread always has its next batch.
_BATCHES_SUBMITTED = _STAGES_AT_ONCE + 2
_CANCEL_SECONDS = 12.0
# The queue of the current run: Prefect's task runner starts each task with the context variables of the flow.
_queue: ContextVar[BlockQueue] = ContextVar("queue")
_log = logging.getLogger(__name__)
Plan = Callable[[RunContext, RetryPolicy, Deadline], list[ScanJob | ScanOutcome]]
Complete = Callable[[ScanOutcome], ScanOutcome]
NOTHING_IGNORED = SearchReport()


@task(name="ingest", task_run_name="ingest {name}", cache_policy=NO_CACHE, persist_result=False)
def ingest_scans(batch: ScanBatch, name: str) -> ScanBatch:
    """Scan files to Zarr."""
    return ingest_batch(batch, _queue.get().deadline)


@task(name="colorize", task_run_name="colorize {name}", cache_policy=NO_CACHE, persist_result=False)
def colorize_scans(batch: ScanBatch, name: str, topic: str, limit: str | None) -> ScanBatch:
    """Chroma of every block, on the cluster that is open, as soon as the limit that all runs share lets it."""
    queue = _queue.get()
    with slot(limit, name, queue.deadline):
        return colorize_batch(batch, queue, topic, queue.deadline)


@task(name="export", task_run_name="export {name}", cache_policy=NO_CACHE, persist_result=False)
def export_scans(batch: ScanBatch, name: str) -> tuple[ScanOutcome, ...]:
    """Zarr to the coloured TIFFs and their sidecars."""
    return export_batch(batch, _queue.get().deadline)


def _tell_tiles(event: tuple[float, dict[str, Any]]) -> None:
    _, what = event
    tell(TilesDone(what["scan"], what["tiles"]))


def _outcomes(batch: ScanBatch, futures: list[PrefectFuture[Any]], deadline: Deadline) -> tuple[ScanOutcome, ...]:
    """Wait for a batch's stages. If a whole stage breaks off, each scan of the batch fails, by no fault of its own."""
    for future in futures:
        future.wait()
        if not future.state.is_completed():
            error = future.state.result(raise_on_failure=False)
            reason = error if isinstance(error, BaseException) else RuntimeError(str(error))
            ended = [step.ended_by(reason, deadline).ended for step in batch]
            return tuple(replace(outcome, is_scans_fault=False) for outcome in ended if outcome is not None)
    outcomes: tuple[ScanOutcome, ...] = futures[-1].result()
    return outcomes


def run_jobs(jobs: list[ScanJob], context: RunContext, deadline: Deadline) -> Generator[ScanOutcome]:
    """Submit the stages of every batch, and yield the outcomes in order."""
    options = context.options
    engine = next((job.engine_spec for job in jobs if job.engine_spec is not None), None)
    with open_cluster(jobs[0].workers, options.cluster, options.limit_memory_bytes, engine) as client:
        topic = f"colorize-archive-{uuid.uuid4().hex}"
        client.subscribe_topic(topic, _tell_tiles)
        queue = BlockQueue(client, deadline=deadline)
        token = _queue.set(queue)
        try:
            with deadline.at_end(queue.take_back):
                yield from _run_batches(list(scan_batches(jobs)), queue, topic, limit_of(context))
        finally:
            _queue.reset(token)


def _submitted(batch: ScanBatch, topic: str, limit: str | None) -> list[PrefectFuture[Any]]:
    name = shown(batch_name(batch))
    ingested = ingest_scans.submit(batch, name)
    coloured = colorize_scans.submit(ingested, name, topic, limit)  # type: ignore[call-overload]
    return [ingested, coloured, export_scans.submit(coloured, name)]


def _run_batches(every: list[ScanBatch], queue: BlockQueue, topic: str, limit: str | None) -> Generator[ScanOutcome]:
    """Submit only a few batches to Prefect at a time: those not yet submitted end at once at the deadline."""
    for batch in every:
        name = shown(batch_name(batch))
        for step in batch:
            tell(ScanPlanned(step.job.scan.stem, step.job.plan.predictions, step.job.info.megapixels, name))
    waiting, running = deque(every), deque[tuple[ScanBatch, list[PrefectFuture[Any]]]]()
    try:
        while waiting or running:
            while waiting and len(running) < _BATCHES_SUBMITTED and not queue.deadline.is_over:
                running.append((batch := waiting.popleft(), _submitted(batch, topic, limit)))
            if running:
                yield from _outcomes(*running[0], queue.deadline)
                running.popleft()
            else:
                yield from (stopped(step.job, queue.deadline) for step in waiting.popleft())
    except (KeyboardInterrupt, TerminationSignal, GeneratorExit):
        queue.deadline.cancel()
        queue.take_back()
        _wait_for([future for _, futures in running for future in futures])
        raise


def _wait_for(futures: list[PrefectFuture[Any]]) -> None:
    """Give cancelled stages some time to finish their current work: Prefect kills the process after 30 s."""
    deadline = time.monotonic() + _CANCEL_SECONDS
    for future in futures:
        future.wait(timeout=max(0.0, deadline - time.monotonic()))


def run_planned(
    planned: list[ScanJob | ScanOutcome],
    context: RunContext,
    deadline: Deadline,
    retry_policy: RetryPolicy,
    complete: Complete,
    log: Path,
) -> Generator[ScanOutcome]:
    """Yield the outcomes that are known already, then run the jobs and yield theirs as they finish.

    ``complete`` completes each outcome before it is reported. Unforeseen failures name the run's ``log``.
    """
    with contextlib.ExitStack() as stack:
        known = [p for p in planned if isinstance(p, ScanOutcome)]
        jobs = retry_policy.in_order(p for p in planned if isinstance(p, ScanJob))
        worked = stack.enter_context(closing(run_jobs(jobs, context, deadline))) if jobs else ()
        for outcome in map(complete, map(retry_policy.with_retry, itertools.chain(known, worked))):
            outcome = naming_log(outcome, log)
            tell(ScanFinished(outcome))
            yield outcome


def record_of(output: Path, started: str) -> Path:
    """Path of the record for a run of this process; its stem is the run's id in the catalogue."""
    return output / "runs" / f"{stamp(started)}-{os.getpid()}.json"


def write_run(
    path: Path,
    kind: str,
    started: str,
    context: RunContext,
    outcomes: list[ScanOutcome],
    state: str,
    ignored: SearchReport,
) -> Path:
    """Write the run's record: the outcome of every scan, and the name of the state that the run ended in."""
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    record = {
        "kind": kind,
        "started": started,
        "finished": utc_now(),
        "state": state,
        "engine": context.engines,
        "model": context.model_name,
        **_networks_record(context),
        **ignored.to_json(),
        "scans": [outcome.to_json() for outcome in outcomes],
    }
    write_json(path, record)
    return path


def _networks_record(context: RunContext) -> dict[str, str]:
    """What a later run goes on with; nothing of one that asks no network."""
    if context.options.grade is not None:
        return {}
    choice, palette = context.choice, context.palette
    networks = {
        "backend": choice.backend,
        "precision": choice.precision,
        "model_sha256": context.model.card.sha256,
    }
    if palette is None:
        return networks
    sha256 = context.model.as_network(PALETTE).card.sha256
    return {
        **networks,
        "palette_backend": palette.backend,
        "palette_precision": palette.precision,
        "palette_model_sha256": sha256,
    }


def run_in(
    options: RunOptions,
    plan: Plan,
    kind: str = "colorize",
    complete: Complete = lambda outcome: outcome,
    ignored: SearchReport = NOTHING_IGNORED,
) -> State[Any]:
    """Plan and do a run in the output folder, which is locked meanwhile; returns the state that the run ends in.

    ``complete`` may add to an outcome before it is reported; ``ignored`` is reported beside the scans.
    """
    began = time.monotonic()
    context = RunContext.of(options)
    try:
        prepare_output(options.output)
    except OutputError as error:
        raise UsageError(str(error)) from error
    see_to_temporary_files(options.output)
    close_task_runs_left()
    with folder_lock(options.output), following(options.output) as page:
        started = utc_now()
        record = record_of(options.output, started)
        with _logged(record.with_suffix(".log"), page is not None):
            try:
                outcomes = _do(context, plan, kind, complete, ignored, started, record)
            except (KeyboardInterrupt, TerminationSignal):
                close_own_task_runs()
                _write_sheet(options.output)
                raise
            except OutputError:
                _write_sheet(options.output)
                raise
            _write_sheet(options.output)
            if page is not None:
                page.show_results(outcomes, name_of(outcomes), record, time.monotonic() - began, ignored.lines)
        return ended(outcomes, record, ignored)


@contextlib.contextmanager
def _logged(log: Path, is_followed: bool) -> Iterator[None]:
    """Log the run in the body to ``log``. Raises BrokeOffError, which names the log, for an unforeseen error."""
    with logging_to(log, errors_too=is_followed), listening(LoggedListener()):
        try:
            yield
        except (ColorizeError, EngineError) as error:
            _log.error("%s", error)
            raise
        except Exception as error:
            _log.exception("the run broke off")
            raise BrokeOffError(f"{in_one_line(error)}; its traceback is in {log}") from error


def _do(
    context: RunContext, plan: Plan, kind: str, complete: Complete, ignored: SearchReport, started: str, record: Path
) -> list[ScanOutcome]:
    """Plan and do the work, and keep the catalogue and the run's ``record``; returns the outcomes of all scans."""
    options, planned, outcomes = context.options, list[ScanJob | ScanOutcome](), list[ScanOutcome]()
    deadline = Deadline(options.until)
    engine, model = context.engines, context.model_name
    tell(Message(engine, brief=context.engines_in_brief))
    for line in ignored.lines:
        tell(Message(line))
    with recording(record, kind, started, engine, model) as files:
        try:
            retry_policy = RetryPolicy.of(options, files.scans(), files.runs())
            planned += plan(replace(context, files=files), retry_policy, deadline)
            log = record.with_suffix(".log")
            with closing(run_planned(planned, context, deadline, retry_policy, complete, log)) as done:
                for outcome in done:
                    outcomes.append(outcome)
        except (KeyboardInterrupt, TerminationSignal):
            deadline.cancel()
            outcomes += _unfinished(planned, outcomes, deadline)
            write_run(record, kind, started, context, outcomes, CANCELLED, ignored)
            raise
        write_run(record, kind, started, context, outcomes, name_of(outcomes), ignored)
        return outcomes


def _write_sheet(output: Path) -> None:
    """Write the contact sheet. A failure is only a warning, because the results exist."""
    try:
        with Catalogue.open(output, is_locked=True) as catalogue:
            write_sheet(output, catalogue)
    except Exception as error:  # no error of the sheet may fail the run
        _log.warning("no contact sheet", exc_info=True)
        warn(f"no contact sheet ({reason_of(error)}); colorize-archive sheet makes it")


def _unfinished(
    planned: list[ScanJob | ScanOutcome], outcomes: list[ScanOutcome], deadline: Deadline
) -> list[ScanOutcome]:
    """Outcomes for the scans that had none when the run was cancelled."""
    heard = {(outcome.scan, outcome.path) for outcome in outcomes}
    jobs = [p for p in planned if isinstance(p, ScanJob)]
    return [stopped(job, deadline) for job in jobs if (job.scan.stem, str(job.scan.path)) not in heard]


def due() -> datetime | None:
    """When the command of this run was given, else when Prefect had scheduled the run; None if neither is known.

    The run's time counts from then: a run that starts late, or resumes after it broke off, gets no second night.
    """
    if (given := command_given()) is not None:
        return given
    when = flow_run.scheduled_start_time  # pendulum's own kind of time
    return None if when is None else min(datetime.fromtimestamp(when.timestamp(), UTC), datetime.now(UTC))


STAGE_RUNNER: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=_STAGES_AT_ONCE)


@flow(name="colorize-archive", task_runner=STAGE_RUNNER, persist_result=False)  # type: ignore[arg-type]
@parameters.taking(RunRequest)
def colorize_archive(**given: Any) -> State[Any]:
    """Colour black-and-white scans."""
    request = RunRequest(**given)

    def run() -> State[Any]:
        options = parse_options(request, due())
        found = find_scans(request.inputs, options.output, options.force)

        def plan(context: RunContext, retry_policy: RetryPolicy, deadline: Deadline) -> list[ScanJob | ScanOutcome]:
            return plan_scans(found.scans, context, retry_policy.deferred, deadline)

        return run_in(options, plan, ignored=found.ignored)

    return as_run_state(run)
