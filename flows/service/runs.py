"""Runs that nobody works on any more, and whether the worker is there.

To take up what is left of a pool is right only where no worker serves it: which worker a run is with, Prefect does not
say.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Crashed
from prefect.types._datetime import now

from flows.orchestration.task_runs import close_task_runs

_BROKEN_OFF = "It was broken off; it goes on from its finished blocks."
# A run that takes its worker down with it each time is not tried for ever.
_MOST_TRIES = 5


def is_online(pool: str, worker: str) -> bool:
    """Whether a worker of that name serves the pool."""
    with get_client(sync_client=True) as client:
        try:
            workers = client.read_workers_for_work_pool(pool)
        except ObjectNotFound:
            return False
    return any(each.name == worker and str(each.status).endswith("ONLINE") for each in workers)


def _runs(pool: str, *states: StateType) -> list[FlowRun]:
    wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))))
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            flow_run_filter=wanted, work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
        )


def unfinished(pool: str, since: datetime | None = None) -> list[UUID]:
    """Runs that a worker has begun; and those that crashed after ``since``, as runs do that lose their worker."""
    begun = _runs(pool, StateType.PENDING, StateType.RUNNING)
    if since is not None:
        begun += [run for run in _runs(pool, StateType.CRASHED) if run.state and run.state.timestamp >= since]
    return [run.id for run in begun]


def schedule_again(runs: list[UUID]) -> list[str]:
    """Of ``runs``, those that did not come to an end of their own; a line for each."""
    lines = []
    with get_client(sync_client=True) as client:
        for run in [client.read_flow_run(each) for each in runs]:
            if run.state is None or run.state.type in (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED):
                continue
            again = run.run_count < _MOST_TRIES
            state: State[None] = (
                AwaitingRetry(scheduled_time=now("UTC"), message=_BROKEN_OFF)
                if again
                else Crashed(message=f"It was broken off {run.run_count} times; the worker's log may say why.")
            )
            client.set_flow_run_state(run.id, state, force=True)
            close_task_runs(client, run.id)
            lines.append(f"{run.name} was broken off, {'it goes on' if again else 'too often: it is given up'}")
    return lines


def take_up(pool: str) -> list[str]:
    """What is to be done where no worker is left: begun runs are scheduled again, cancelled ones are cancelled."""
    lines = schedule_again(unfinished(pool))
    with get_client(sync_client=True) as client:
        for run in _runs(pool, StateType.CANCELLING):
            client.set_flow_run_state(run.id, Cancelled(message="Its process had ended."), force=True)
            close_task_runs(client, run.id)
            lines.append(f"{run.name} was cancelled")
    return lines + _skip_missed(pool)


def _skip_missed(pool: str) -> list[str]:
    """Of the scheduled runs that nobody was there to start, only the last of each deployment is done."""
    last: dict[UUID | None, FlowRun] = {}
    lines = []
    with get_client(sync_client=True) as client:
        overdue = [run for run in _runs(pool, StateType.SCHEDULED) if run.auto_scheduled and _due(run) < now("UTC")]
        for run in sorted(overdue, key=_due):
            earlier = last.get(run.deployment_id)
            last[run.deployment_id] = run
            if earlier is not None:
                client.set_flow_run_state(
                    earlier.id, Cancelled(message="Missed; a later one makes up for it."), force=True
                )
                lines.append(
                    f"{earlier.name} was missed at {_due(earlier):%Y-%m-%d %H:%M}; a later one makes up for it"
                )
    return lines


def _due(run: FlowRun) -> datetime:
    return run.expected_start_time or now("UTC")


def take_up_and_become(pool: str, *command: str) -> None:
    """Take up what is left of ``pool``, and become ``command``, a worker of it, where there is one.

    So begins a worker's container, whose runs died with the container before it. Exits with one line where the server
    does not answer.
    """
    try:
        lines = take_up(pool)
    except (httpx.HTTPError, RuntimeError) as error:  # the latter is Prefect's, where nobody answers
        why = " ".join(str(error).split()) or type(error).__name__
        sys.exit(
            f"pool {pool}: what was broken off is not known ({why}), no worker was started; start the server first"
        )
    for line in lines:
        print(line, flush=True)
    if command:
        os.execvp(command[0], command)
