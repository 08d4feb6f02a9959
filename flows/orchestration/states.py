"""How runs end, as final states of Prefect's: of the same name, and with the same line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun, FailedRun, TerminationSignal
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Cancelled, Completed, Failed

from flows.orchestration.task_runs import own_flow_run
from flows.run.endings import ENDS, RunEnd, end_of, stopped_by_hand

_STATES = {"completed": Completed, "failed": Failed, "cancelled": Cancelled}


def as_run_state(run: Callable[[], RunEnd]) -> State[Any]:
    """The end of ``run`` as a state for a flow to return.

    If the process of a deployment is told to end, the state is up to Prefect, which knows whether somebody asked for
    it.
    """
    try:
        end = end_of(run)
    except TerminationSignal:
        flow_run = own_flow_run()
        if flow_run is not None and flow_run.deployment_id is not None:
            raise
        end = stopped_by_hand()
    return as_end(_STATES[end.kind](name=end.name, message=end.message))


def end_here(flow: Callable[..., Any], parameters: Mapping[str, Any]) -> RunEnd | BaseException:
    """How ``flow`` ends, run in this process; the error if it was not one of the flow's own ends."""
    # A run that ends with its command needs no heartbeats, and stopping them takes a second.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        state: State[Any] = flow(**parameters, return_state=True)
    kind = state.type.name.lower()
    if state.name in ENDS and kind in _STATES:
        return RunEnd(str(state.name), state.message or "", kind)  # type: ignore[arg-type]
    error = state.result(raise_on_failure=False)
    return error if isinstance(error, BaseException) else RuntimeError(f"{state.name}: {state.message}")


def as_end(state: State[Any]) -> State[Any]:
    """A state for a flow to return. Prefect raises failed states, and would log each with a traceback."""
    log = logging.getLogger("prefect.flow_runs")
    if _without_raised_states not in log.filters:
        log.addFilter(_without_raised_states)
    return state


def _without_raised_states(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, FailedRun | CancelledRun)
