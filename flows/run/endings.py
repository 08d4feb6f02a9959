"""How runs end: with a name, by which operators and automations tell them apart, and a line.

The names are fixed, because Prefect's events and automations go by them; counts are in the line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from engines.errors import EngineError
from flows.inputs import NoScansError, SearchReport
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
ENDS = (ALL_DONE, NOTHING, TIME_UP, SOME_FAILED, ALL_FAILED, BUSY, NOT_STARTED, BROKE_OFF, CANCELLED)
_STOPPED = "It was stopped by hand; the same command goes on with it."


@dataclass(frozen=True)
class RunEnd:
    """How a run ended: ``kind`` is that of a state of Prefect's, ``message`` one line."""

    name: str
    message: str
    kind: Literal["completed", "failed", "cancelled"] = "completed"


class BrokeOffError(ColorizeError):
    """An unforeseen error ended a run; the message names the log with its traceback."""


def name_of(outcomes: Sequence[ScanOutcome]) -> str:
    """The name of the end that fits the outcomes."""
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


def ended(outcomes: Sequence[ScanOutcome], where: object, ignored: SearchReport) -> RunEnd:
    """How a run ended that reached its end; ``where`` is its record, ``ignored`` what its search left out."""
    empty_inputs = (
        f"{len(ignored.empty_inputs)} of the inputs or folders gave nothing; " if ignored.empty_inputs else ""
    )
    name, message = name_of(outcomes), f"{in_words(outcomes)}; {empty_inputs}{shown(where)}"
    return RunEnd(name, message, "failed" if name in (SOME_FAILED, ALL_FAILED) else "completed")


def stopped_by_hand() -> RunEnd:
    """How a run ended that somebody stopped."""
    return RunEnd(CANCELLED, _STOPPED, "cancelled")


def end_of(run: Callable[[], RunEnd], raised: tuple[type[Exception], ...] = ()) -> RunEnd:
    """The end that ``run`` returns; an exception becomes an end and a line, not a traceback, unless it is ``raised``.

    If another run works on the folder, this one is cancelled and not failed, as by Prefect's own limits, because the
    first run does the work. A run stopped by hand is cancelled, too.
    """
    try:
        return run()
    except raised:
        raise
    except NoScansError as error:
        return RunEnd(NOTHING, shown(error))
    except FolderBusyError as error:
        return RunEnd(BUSY, shown(error), "cancelled")
    except (UsageError, EngineError) as error:
        return RunEnd(NOT_STARTED, shown(error), "failed")
    except (BrokeOffError, OutputError) as error:
        return RunEnd(BROKE_OFF, shown(error), "failed")
    except KeyboardInterrupt:
        return stopped_by_hand()
    except Exception as error:  # raised before the run had a log
        log = keep_traceback(error, "a run could not begin")
        return RunEnd(BROKE_OFF, f"{in_one_line(error)}; its traceback is in {shown(log)}", "failed")
