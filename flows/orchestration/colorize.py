"""The flow ``colorize-archive``: a run whose batches of scans and their stages are tasks that Prefect sees.

Dask sees blocks. Everything else is :mod:`flows.run.running`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
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

from flows.cluster.queue import BlockQueue
from flows.deadline import command_given
from flows.objects.requests import colorize
from flows.orchestration import parameters
from flows.orchestration.forms import with_plain_form
from flows.orchestration.limits import limit_of, slot
from flows.orchestration.progress_page import following
from flows.orchestration.run_names import named
from flows.orchestration.states import as_run_state
from flows.orchestration.task_runs import close_own_task_runs, close_task_runs_left
from flows.outcome import ScanOutcome
from flows.request import RunRequest
from flows.run.batches import ScanBatch, batch_name
from flows.run.host import Host, Page
from flows.run.jobs import RunContext
from flows.run.stage_threads import STAGES_AT_ONCE, Stage, Submit
from flows.run.stages import colorize_batch, export_batch, ingest_batch
from pipeline.support.names import shown

# The queue of the current run: Prefect's task runner starts each task with the context variables of the flow.
_queue: ContextVar[BlockQueue] = ContextVar("queue")


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


@dataclass(frozen=True)
class _TaskRun:
    """A task run as a :class:`flows.run.stage_threads.Stage`."""

    future: PrefectFuture[Any]

    def wait(self, seconds: float | None = None) -> None:
        self.future.wait(timeout=seconds)

    def error(self) -> BaseException | None:
        if self.future.state.is_completed():
            return None
        error = self.future.state.result(raise_on_failure=False)
        return error if isinstance(error, BaseException) else RuntimeError(str(error))

    def result(self) -> Any:
        return self.future.result()


@dataclass(frozen=True)
class _InFlow:
    """The flow run of this process, as a run's :class:`flows.run.running.Host`."""

    stops: tuple[type[BaseException], ...] = (KeyboardInterrupt, TerminationSignal)

    def begin(self) -> None:
        close_task_runs_left()

    def following(self, output: Path) -> AbstractContextManager[Page | None]:
        return following(output)

    @contextlib.contextmanager
    def stages(self, queue: BlockQueue, topic: str, context: RunContext) -> Iterator[Submit]:
        limit = limit_of(context)

        def submit(batch: ScanBatch) -> Sequence[Stage]:
            name = shown(batch_name(batch)) + _try()
            ingested = ingest_scans.submit(batch, name)
            coloured = colorize_scans.submit(ingested, name, topic, limit)  # type: ignore[call-overload]
            return [_TaskRun(each) for each in (ingested, coloured, export_scans.submit(coloured, name))]

        token = _queue.set(queue)
        try:
            yield submit
        finally:
            _queue.reset(token)

    def break_off(self) -> None:
        close_own_task_runs()


def _try() -> str:
    """Which try of this flow run it is, where there was one before: its task runs stay on the page."""
    count = flow_run.get_run_count()
    return f", try {count}" if count > 1 else ""


IN_FLOW: Host = _InFlow()


def due() -> datetime | None:
    """When the command of this run was given, else when Prefect had scheduled the run; None if neither is known.

    The run's time counts from then: a run that starts late, or resumes after it broke off, gets no second night.
    """
    if (given := command_given()) is not None:
        return given
    when = flow_run.scheduled_start_time  # pendulum's own kind of time
    return None if when is None else min(datetime.fromtimestamp(when.timestamp(), UTC), datetime.now(UTC))


STAGE_RUNNER: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=STAGES_AT_ONCE)


@with_plain_form
@flow(name="colorize-archive", flow_run_name=named, task_runner=STAGE_RUNNER, persist_result=False)  # type: ignore[arg-type]
@parameters.taking(RunRequest)
def colorize_archive(**given: Any) -> State[Any]:
    """Colour black-and-white scans."""
    request = parameters.requested(RunRequest, given)
    return as_run_state(lambda: colorize(request, due(), IN_FLOW))
