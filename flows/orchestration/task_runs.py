"""Close abandoned task runs: Prefect leaves those of a process that died open.

Those that had begun become Crashed. Those that had not are removed, once their process is gone: they did nothing,
Prefect names a task run only when it begins, and the next try has its own.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_OPEN = [StateType.PENDING, StateType.RUNNING, StateType.SCHEDULED, StateType.CANCELLING]
_ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
_FLOWS = ["colorize-archive", "reprocess-archive"]
_MESSAGE = "It was broken off; what it finished is kept."
_PAGE = 200
_log = logging.getLogger(__name__)


def own_flow_run() -> FlowRun | None:
    """The current flow run; None outside of one."""
    context = FlowRunContext.get()
    return None if context is None else context.flow_run  # type: ignore[return-value]


def close_task_runs(client: SyncPrefectClient, *flow_run_ids: UUID) -> int:
    """Close the open task runs of flow runs without a live process; returns how many there were."""
    if not flow_run_ids:
        return 0
    flow_runs = FlowRunFilter(id=FlowRunFilterId(any_=list(flow_run_ids)))
    for task_run in _every(client, flow_runs, None, StateType.CRASHED):
        if not _had_begun(task_run):  # a run that broke off closed it itself
            _delete(client, task_run)
    return _close(client, flow_runs)


def close_task_runs_left() -> None:
    """At the start of a deployment's run, close task runs of its earlier attempts and of our flow runs that ended.

    A failure here does not fail the run.
    """
    flow_run = own_flow_run()
    if flow_run is None or flow_run.deployment_id is None:
        return
    ended = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_ENDED)))
    ours = FlowFilter(name=FlowFilterName(any_=_FLOWS))
    with _harmless(), get_client(sync_client=True) as client:
        if flow_run.run_count > 1:
            close_task_runs(client, flow_run.id)
        _close(client, ended, ours)


def close_own_task_runs() -> None:
    """Close the open task runs of the current flow run, which is breaking off.

    None is removed: a thread may be about to begin it.
    """
    flow_run = own_flow_run()
    if flow_run is None:
        return
    with _harmless(), get_client(sync_client=True) as client:
        _close(client, FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id])), removes=False)


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the server's trouble is not the run's
        _log.warning("task runs that were broken off may stay open on Prefect's page", exc_info=error)


def _close(
    client: SyncPrefectClient, flow_runs: FlowRunFilter, flows: FlowFilter | None = None, removes: bool = True
) -> int:
    found = _every(client, flow_runs, flows, *_OPEN)
    for task_run in found:
        if removes and not _had_begun(task_run):
            _delete(client, task_run)
        else:
            client.set_task_run_state(task_run.id, Crashed(message=_MESSAGE), force=True)
    return len(found)


def _delete(client: SyncPrefectClient, task_run: TaskRun) -> None:
    with contextlib.suppress(ObjectNotFound):  # another worker of the pool was faster
        client.delete_task_run(task_run.id)


def _had_begun(task_run: TaskRun) -> bool:
    # It has a start, too, once it is closed.
    return task_run.run_count > 0


def _every(
    client: SyncPrefectClient, flow_runs: FlowRunFilter, flows: FlowFilter | None, *states: StateType
) -> list[TaskRun]:
    """All task runs in ``states``, read before any of them is changed, so that pages stay pages."""
    wanted = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=list(states))))
    found: list[TaskRun] = []
    while page := client.read_task_runs(
        flow_filter=flows, flow_run_filter=flow_runs, task_run_filter=wanted, limit=_PAGE, offset=len(found)
    ):
        found += page
    return found
