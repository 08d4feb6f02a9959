"""What commands print for programs: one JSON object, or the events of a run as JSON Lines.

Every object says its ``command`` and the ``format`` of these outputs; the other keys are those of the command, as
``docs/json.md`` lists them. Times are ISO 8601 in UTC, units are in the names, and what is not known is null.

References
----------
RFC 8259 (JSON); JSON Lines (jsonlines.org).
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.support.names import shown_json

if TYPE_CHECKING:
    from flows.cli.work_left import WorkLeft
    from flows.events import Listener, RunEvent

# Raised when a key changes its meaning or goes; new keys do not raise it.
FORMAT = 1
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_PROGRESS_SECONDS = 1.0
# Events come from several threads.
_PRINTING = threading.Lock()


def print_json(command: str, facts: dict[str, Any]) -> None:
    """Print the facts of a command as one object."""
    typer.echo(shown_json({"command": command, "format": FORMAT, **facts}))


def print_event(event: str, **facts: Any) -> None:
    """Print one event as one line."""
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    with _PRINTING:
        typer.echo(json.dumps({"event": event, "time": when, **facts}))


class EventLines:
    """Prints the events of a run as JSON Lines and passes them on; a :class:`flows.events.Listener`."""

    def __init__(self, work: WorkLeft, following: Listener) -> None:
        self._work, self._following = work, following
        self._told = time.monotonic()

    def on(self, event: RunEvent) -> None:
        from flows.events import Message, ScanFinished, ScanPlanned, StageBegan

        self._following.on(event)
        match event:
            case Message():
                print_event("message", text=event.line, is_warning=event.is_warning)
            case ScanPlanned():
                print_event("planned", **asdict(event))
            case StageBegan():
                print_event("stage", **asdict(event))
            case ScanFinished():
                print_event("finished", **event.outcome.to_json())
            case _ if time.monotonic() - self._told >= _PROGRESS_SECONDS:
                self._told = time.monotonic()
                print_event("progress", **asdict(self._work.now()))
