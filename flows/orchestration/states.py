"""The final states of a run, by which operators and automations tell runs apart.

Their names are fixed, because Prefect's events and automations go by the name; counts are in the message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun, FailedRun, TerminationSignal
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Cancelled, Completed, Failed

from engines.errors import EngineError
from flows.inputs import NoScansError, SearchReport
from flows.orchestration.task_runs import own_flow_run
from flows.outcome import BROKE_OFF, CANCELLED, ScanOutcome
from flows.run.run_log import in_one_line, keep_traceback
from pipeline.errors import ColorizeError, FolderBusyError, OutputError, UsageError
from pipeline.support.names import shown

ALL_DONE = "All done"
NOTHING = "Nothing to do"
TIME_UP = "Time is up"
SOME_FAILED = "Some scans failed"
ALL_FAILED = "All scans failed"
BUSY = "Another run is working on this output"
NOT_STARTED = "Could not start"
_STOPPED = "It was stopped by hand; the same command goes on with it."


def name_of(outcomes: Sequence[ScanOutcome]) -> str:
    """The name of the state that fits the outcomes."""
    statuses = {outcome.status for outcome in outcomes}
    if any(outcome.has_failed for outcome in outcomes):
        return SOME_FAILED if statuses & {"done", "stopped"} or has_results(outcomes) else ALL_FAILED
    if "stopped" in statuses:
        return TIME_UP
    return ALL_DONE if "done" in statuses else NOTHING


def has_results(outcomes: Sequence[ScanOutcome]) -> bool:
    """True if any scan already had a result before the run."""
    return any(outcome.status == "skipped" and outcome.result for outcome in outcomes)


def in_words(outcomes: Sequence[ScanOutcome]) -> str:
    """The number of scans of each kind, such as ``12 done, 3 already there, 1 failed``."""
    counts = {
        "done": sum(o.status == "done" for o in outcomes),
        "already there": sum(o.status == "skipped" and bool(o.result) for o in outcomes),
        "failed": sum(o.has_failed for o in outcomes),
        "left for the next run": sum(o.status == "stopped" for o in outcomes),
        "left out after failures": sum(o.is_left_out for o in outcomes),
        "left out by policy.yaml": sum(o.is_forbidden for o in outcomes),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "no scans"


def ended(outcomes: Sequence[ScanOutcome], where: object, ignored: SearchReport) -> State[Any]:
    """The state of a run that reached its end; ``where`` is its record, ``ignored`` what its search left out."""
    empty_inputs = (
        f"{len(ignored.empty_inputs)} of the inputs or folders gave nothing; " if ignored.empty_inputs else ""
    )
    name, message = name_of(outcomes), f"{in_words(outcomes)}; {empty_inputs}{shown(where)}"
    if name in (SOME_FAILED, ALL_FAILED):
        return Failed(name=name, message=message)
    return Completed(name=name, message=message)


class BrokeOffError(ColorizeError):
    """An unforeseen error ended a run; the message names the log with its traceback."""


def as_run_state(run: Callable[[], State[Any]]) -> State[Any]:
    """The state that ``run`` returns; an exception becomes a state and a line, not a traceback.

    If another run works on the folder, this one is cancelled and not failed, as by Prefect's own limits, because the
    first run does the work. A run stopped by hand is cancelled, too. If the process of a deployment is told to end, the
    state is up to Prefect, which knows whether somebody asked for it.
    """
    return as_end(_told(run))


def _told(run: Callable[[], State[Any]]) -> State[Any]:
    try:
        return run()
    except NoScansError as error:
        return Completed(name=NOTHING, message=shown(error))
    except FolderBusyError as error:
        return Cancelled(name=BUSY, message=shown(error))
    except (UsageError, EngineError) as error:
        return Failed(name=NOT_STARTED, message=shown(error))
    except (BrokeOffError, OutputError) as error:
        return Failed(name=BROKE_OFF, message=shown(error))
    except KeyboardInterrupt:
        return Cancelled(name=CANCELLED, message=_STOPPED)
    except TerminationSignal:
        flow_run = own_flow_run()
        if flow_run is not None and flow_run.deployment_id is not None:
            raise
        return Cancelled(name=CANCELLED, message=_STOPPED)
    except Exception as error:  # raised before the run had a log
        log = keep_traceback(error, "a run could not begin")
        return Failed(name=BROKE_OFF, message=f"{in_one_line(error)}; its traceback is in {shown(log)}")


def run_here(flow: Callable[..., Any], parameters: Mapping[str, Any]) -> State[Any]:
    """The state that ``flow`` ends in, run in this process."""
    # A run that ends with its command needs no heartbeats, and stopping them takes a second.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        state: State[Any] = flow(**parameters, return_state=True)
    return state


def as_end(state: State[Any]) -> State[Any]:
    """A state for a flow to return. Prefect raises failed states, and would log each with a traceback."""
    log = logging.getLogger("prefect.flow_runs")
    if _without_raised_states not in log.filters:
        log.addFilter(_without_raised_states)
    return state


def _without_raised_states(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, FailedRun | CancelledRun)
