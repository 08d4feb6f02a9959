"""A run: many scans, each ingested, coloured and exported, from its options to its record.

Stages of different batches overlap: while one is coloured, the next is ingested and the previous one exported. A scan
that fails never stops the others. A run stops early at its deadline or when somebody cancels it: blocks that were begun
are finished, or made again by the next run, which resumes from there.

A :class:`flows.run.host.Host` says what runs the stages and who looks on.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines.errors import EngineError
from flows.catalogue.recorder import recording
from flows.cluster.dask_cluster import open_cluster, prestarted
from flows.cluster.queue import BlockQueue
from flows.deadline import Deadline
from flows.events import Message, ScanFinished, ScanPlanned, TilesDone, listening, tell, warn
from flows.inputs import SearchReport
from flows.options import RunOptions
from flows.outcome import CANCELLED, ScanOutcome
from flows.run.batches import ScanBatch, batch_name, scan_batches, stopped
from flows.run.contact_sheet import refresh_sheet
from flows.run.endings import BrokeOffError, RunEnd, ended, name_of
from flows.run.host import HERE, Host
from flows.run.jobs import RunContext, ScanJob, prepare_output
from flows.run.planning import naming_log
from flows.run.retry_policy import RetryPolicy
from flows.run.run_log import LoggedListener, in_one_line, logging_to
from flows.run.run_record import record_of, write_run
from flows.run.stage_threads import STAGES_AT_ONCE, Stage, Submit
from flows.run.temporary_folder import see_to_temporary_files
from flows.run.withdrawal import Withdrawal, withdraw
from pipeline.errors import ColorizeError, OutputError, UsageError
from pipeline.results.run_spec import utc_now
from pipeline.support.files import folder_lock
from pipeline.support.names import shown

# Enough that every stage thread always has its next batch.
_BATCHES_SUBMITTED = STAGES_AT_ONCE + 2
_CANCEL_SECONDS = 12.0
_log = logging.getLogger(__name__)
Plan = Callable[[RunContext, RetryPolicy, Deadline], list[ScanJob | ScanOutcome]]
Complete = Callable[[ScanOutcome], ScanOutcome]
NOTHING_IGNORED = SearchReport()


def _tell_tiles(event: tuple[float, dict[str, Any]]) -> None:
    _, what = event
    tell(TilesDone(what["scan"], what["tiles"]))


def _outcomes(batch: ScanBatch, stages: Sequence[Stage], deadline: Deadline) -> tuple[ScanOutcome, ...]:
    """Wait for a batch's stages. If a whole stage breaks off, each scan of the batch fails, by no fault of its own."""
    for stage in stages:
        stage.wait()
        if (error := stage.error()) is not None:
            ended = [step.ended_by(error, deadline).ended for step in batch]
            return tuple(replace(outcome, is_scans_fault=False) for outcome in ended if outcome is not None)
    outcomes: tuple[ScanOutcome, ...] = stages[-1].result()
    return outcomes


def _run_jobs(jobs: list[ScanJob], context: RunContext, deadline: Deadline, host: Host) -> Generator[ScanOutcome]:
    """Submit the stages of every batch, and yield the outcomes in order."""
    options = context.options
    engine = next((job.engine_spec for job in jobs if job.engine_spec is not None), None)
    limit_bytes, seconds_left = options.limit_memory_bytes, deadline.seconds_left
    with open_cluster(jobs[0].workers, options.cluster, limit_bytes, engine, seconds_left) as client:
        topic = f"colorize-archive-{uuid.uuid4().hex}"
        client.subscribe_topic(topic, _tell_tiles)
        queue = BlockQueue(client, deadline=deadline)
        with host.stages(queue, topic, context) as submit, deadline.at_end(queue.take_back):
            yield from _run_batches(list(scan_batches(jobs)), queue, submit, host)


def _run_batches(every: list[ScanBatch], queue: BlockQueue, submit: Submit, host: Host) -> Generator[ScanOutcome]:
    """Submit only a few batches at a time: those not yet submitted end at once at the deadline."""
    for batch in every:
        name = shown(batch_name(batch))
        for step in batch:
            tell(ScanPlanned(step.job.scan.stem, step.job.plan.predictions, step.job.info.megapixels, name))
    waiting, running = deque(every), deque[tuple[ScanBatch, Sequence[Stage]]]()
    stops: tuple[type[BaseException], ...] = (GeneratorExit, *host.stops)
    try:
        while waiting or running:
            while waiting and len(running) < _BATCHES_SUBMITTED and not queue.deadline.is_over:
                running.append((batch := waiting.popleft(), submit(batch)))
            if running:
                yield from _outcomes(*running[0], queue.deadline)
                running.popleft()
            else:
                yield from (stopped(step.job, queue.deadline) for step in waiting.popleft())
    except stops:
        queue.deadline.cancel()
        queue.take_back()
        _wait_for([stage for _, stages in running for stage in stages])
        raise


def _wait_for(stages: list[Stage]) -> None:
    """Give cancelled stages some time to finish their current work: Prefect kills the process after 30 s."""
    deadline = time.monotonic() + _CANCEL_SECONDS
    for stage in stages:
        stage.wait(max(0.0, deadline - time.monotonic()))


def _run_planned(
    planned: list[ScanJob | ScanOutcome],
    context: RunContext,
    deadline: Deadline,
    retry_policy: RetryPolicy,
    complete: Complete,
    log: Path,
    host: Host,
) -> Generator[ScanOutcome]:
    """Yield the outcomes that are known already, then run the jobs and yield theirs as they finish.

    ``complete`` completes each outcome before it is reported. Unforeseen failures name the run's ``log``.
    """
    with contextlib.ExitStack() as stack:
        known = [p for p in planned if isinstance(p, ScanOutcome)]
        jobs = retry_policy.in_order(p for p in planned if isinstance(p, ScanJob))
        worked = stack.enter_context(closing(_run_jobs(jobs, context, deadline, host))) if jobs else ()
        for outcome in map(complete, map(retry_policy.with_retry, itertools.chain(known, worked))):
            outcome = naming_log(outcome, log)
            tell(ScanFinished(outcome))
            yield outcome


def run_in(
    options: RunOptions,
    plan: Plan,
    kind: str = "colorize",
    complete: Complete = lambda outcome: outcome,
    ignored: SearchReport = NOTHING_IGNORED,
    host: Host = HERE,
    passing: Path | None = None,
) -> RunEnd:
    """Plan and do a run in the output folder, which is locked meanwhile; returns how the run ended.

    ``complete`` may add to an outcome before it is reported; ``ignored`` is reported beside the scans. In the folder
    ``passing`` scans are only while a run works on them.
    """
    began = time.monotonic()
    context = RunContext.of(options)
    try:
        prepare_output(options.output)
    except OutputError as error:
        raise UsageError(str(error)) from error
    see_to_temporary_files(options.output)
    host.begin()
    cluster = prestarted(context.workers, options.cluster, options.limit_memory_bytes, context.engine_spec)
    with folder_lock(options.output), host.following(options.output) as page, cluster:
        started = utc_now()
        record = record_of(options.output, started)
        with _logged(record.with_suffix(".log"), page is not None):
            withdrawn = withdraw(options.output, kind)
            try:
                outcomes = _do(context, plan, kind, complete, ignored, started, record, host, withdrawn, passing)
            except host.stops:
                host.break_off()
                refresh_sheet(options.output)
                raise
            except OutputError:
                refresh_sheet(options.output)
                raise
            refresh_sheet(options.output)
            if page is not None:
                notes = (*ignored.lines, *(each.line for each in withdrawn))
                page.show_results(outcomes, name_of(outcomes), record, time.monotonic() - began, notes)
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
    context: RunContext,
    plan: Plan,
    kind: str,
    complete: Complete,
    ignored: SearchReport,
    started: str,
    record: Path,
    host: Host,
    withdrawn: list[Withdrawal],
    passing: Path | None,
) -> list[ScanOutcome]:
    """Plan and do the work, and keep the catalogue and the run's ``record``; returns the outcomes of all scans.

    What was ``withdrawn`` before, and what may no longer go out at the end of the run, is in the record, too.
    """
    options, planned, outcomes = context.options, list[ScanJob | ScanOutcome](), list[ScanOutcome]()
    deadline = Deadline(options.until)
    engine, model = context.engines, context.model_name
    tell(Message(engine, brief=context.engines_in_brief))
    for line in ignored.lines:
        tell(Message(line))
    with recording(record, kind, started, engine, model, passing) as files:
        try:
            retry_policy = RetryPolicy.of(options, files.scans(), files.runs())
            planned += plan(replace(context, files=files), retry_policy, deadline)
            log = record.with_suffix(".log")
            with closing(_run_planned(planned, context, deadline, retry_policy, complete, log, host)) as done:
                for outcome in done:
                    outcomes.append(outcome)
        except host.stops:
            deadline.cancel()
            outcomes += _unfinished(planned, outcomes, deadline)
            write_run(record, kind, started, context, outcomes, CANCELLED, ignored, withdrawn)
            raise
        # Rules and decisions may have changed meanwhile.
        withdrawn += _withdrawn_late(options.output, kind)
        write_run(record, kind, started, context, outcomes, name_of(outcomes), ignored, withdrawn)
        return outcomes


def _withdrawn_late(output: Path, kind: str) -> list[Withdrawal]:
    """As :func:`withdraw` for the end of a run, which a policy that somebody is just writing does not break off."""
    try:
        return withdraw(output, kind)
    except ColorizeError as error:
        warn(f"{error}; what may no longer go out is withdrawn by the next run")
        return []


def _unfinished(
    planned: list[ScanJob | ScanOutcome], outcomes: list[ScanOutcome], deadline: Deadline
) -> list[ScanOutcome]:
    """Outcomes for the scans that had none when the run was cancelled."""
    heard = {(outcome.scan, outcome.path) for outcome in outcomes}
    jobs = [p for p in planned if isinstance(p, ScanJob)]
    return [stopped(job, deadline) for job in jobs if (job.scan.stem, str(job.scan.path)) not in heard]
