"""The states that a run ends in, by which an operator, and an automation, tells them apart.

Their names never change from run to run, and what does (how many of how many) is in the message: Prefect's events and
automations go by the name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from engines.errors import EngineError
from flows.inputs import Aside, NoScansError
from flows.jobs import Outcome
from pipeline.errors import UsageError

ALL_DONE = "All done"
NOTHING = "Nothing to do"
TIME_UP = "Time is up"
SOME_FAILED = "Some scans failed"
ALL_FAILED = "All scans failed"
BUSY = "Another run is working on this output"
NOT_STARTED = "Could not start"
CANCELLED = "Cancelled"


def name_of(outcomes: Sequence[Outcome]) -> str:
    """Which of the names fits what became of the scans."""
    statuses = {outcome.status for outcome in outcomes}
    if any(outcome.has_failed for outcome in outcomes):
        return SOME_FAILED if statuses & {"done", "stopped"} or has_results(outcomes) else ALL_FAILED
    if "stopped" in statuses:
        return TIME_UP
    return ALL_DONE if "done" in statuses else NOTHING


def has_results(outcomes: Sequence[Outcome]) -> bool:
    """Whether any scan's result was there before."""
    return any(outcome.status == "skipped" and outcome.result for outcome in outcomes)


def in_words(outcomes: Sequence[Outcome]) -> str:
    """How many scans came to what, such as ``12 done, 3 already there, 1 failed``."""
    counts = {
        "done": sum(o.status == "done" for o in outcomes),
        "already there": sum(o.status == "skipped" and bool(o.result) for o in outcomes),
        "failed": sum(o.has_failed for o in outcomes),
        "left for the next run": sum(o.status == "stopped" for o in outcomes),
        "left out after failures": sum(o.is_left_out for o in outcomes),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "no scans"


def ended(outcomes: Sequence[Outcome], where: object, aside: Aside) -> State[Any]:
    """The state of a run that came to its end; ``where`` its record lies, and what was left ``aside``."""
    in_vain = f"{len(aside.in_vain)} of the inputs or folders gave nothing; " if aside.in_vain else ""
    name, message = name_of(outcomes), f"{in_words(outcomes)}; {in_vain}{where}"
    if name in (SOME_FAILED, ALL_FAILED):
        return Failed(name=name, message=message)
    return Completed(name=name, message=message)


def told(run: Callable[[], State[Any]]) -> State[Any]:
    """What ``run`` returns; what keeps it from starting is a state and a line, not a traceback.

    A folder that is worked on already ends the second run as Prefect's own limits end one that comes too early:
    cancelled, not failed, because the first one does the work.
    """
    try:
        return run()
    except NoScansError as error:
        return Completed(name=NOTHING, message=str(error))
    except (UsageError, EngineError) as error:
        if isinstance(error.__cause__, BlockingIOError):
            return Cancelled(name=BUSY, message=str(error))
        return Failed(name=NOT_STARTED, message=str(error))
