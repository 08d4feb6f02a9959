"""A run as Prefect's page follows it: log lines with scan names, and progress while the run goes on.

Only for runs that somebody can follow there: those of a deployment, and those of the command if it logs to a server
(``PREFECT_LOGGING_TO_API_ENABLED=true``), which the command switches off by default.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED

from flows.events import (
    Listener,
    Message,
    RunEvent,
    ScanFinished,
    ScanPlanned,
    TilesDone,
    listener,
    listening,
)
from flows.orchestration.artifacts import PROGRESS, RunPage
from flows.outcome import ScanOutcome
from pipeline.support.names import shown
from pipeline.support.text import reason_of

_FIRST_SECONDS, _NEXT_SECONDS = 2.0, 5.0
# A shorter batch is done before anybody looks.
_LONG_SECONDS = 10.0
_log = logging.getLogger(__name__)


@dataclass
class _Batch:
    """Tile counts of scans that are coloured together, and the artifact that shows their progress."""

    planned: int = 0
    predicted: int = 0
    scans: int = 0
    finished: int = 0
    since: float | None = None
    artifact: UUID | None = None
    told: tuple[float, str] | None = None

    @property
    def percent(self) -> float:
        if self.scans == self.finished:
            return 100.0
        return round(min(99.9, 100 * self.predicted / max(1, self.planned)), 1)


@dataclass
class _Scan:
    planned: int
    batch: _Batch
    predicted: int = 0


@dataclass
class PrefectProgress:
    """A :class:`flows.events.Listener` that shows events on Prefect's page and passes them to the previous listener."""

    page: RunPage
    log: logging.Logger | logging.LoggerAdapter[logging.Logger]
    following: Listener
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _whole: _Batch = field(default_factory=_Batch)
    _batches: dict[str, _Batch] = field(default_factory=dict)
    _scans: dict[str, _Scan] = field(default_factory=dict)

    def on(self, event: RunEvent) -> None:
        self.following.on(event)
        match event:
            case Message():
                self.log.log(logging.WARNING if event.is_warning else logging.INFO, "%s", shown(event.line))
            case ScanPlanned():
                self._plan(event)
            case TilesDone():
                self._count(event)
            case ScanFinished():
                self._finish(event.outcome)

    def _plan(self, scan: ScanPlanned) -> None:
        with self._lock:
            one = self._batches.setdefault(scan.batch, _Batch())
            self._scans[scan.scan] = _Scan(scan.tiles, one)
            for each in (self._whole, one):
                each.planned += scan.tiles
                each.scans += 1

    def _count(self, done: TilesDone) -> None:
        with self._lock:
            if (of := self._scans.get(done.scan)) is None:
                return
            tiles = min(done.tiles, of.planned - of.predicted)  # tiles of refinements are not in the plan
            of.predicted += tiles
            for each in (self._whole, of.batch):
                each.predicted += tiles
                each.since = each.since or time.monotonic()

    def _finish(self, outcome: ScanOutcome) -> None:
        with self._lock:
            if (of := self._scans.pop(outcome.scan, None)) is not None:
                for each in (self._whole, of.batch):
                    each.predicted += of.planned - of.predicted
                    each.finished += 1
        self._log(outcome)

    def _log(self, outcome: ScanOutcome) -> None:
        """Log a line for each scan that was worked on, but not for thousands that were done already."""
        if outcome.has_failed:
            after = "; quarantined, later runs leave it out" if outcome.status == "quarantined" else ""
            self.log.error("%s: %s%s", shown(outcome.scan), shown(outcome.message), after)
        elif outcome.is_left_out:
            self.log.warning("%s: %s", shown(outcome.scan), shown(outcome.message))
        elif outcome.status == "done":
            seconds = ", ".join(f"{name} {value:.1f} s" for name, value in outcome.seconds)
            scan = shown(outcome.scan)
            self.log.info("%s: done, %.1f MP, %d tiles, %s", scan, outcome.megapixels, outcome.tiles, seconds)

    @contextlib.contextmanager
    def telling_progress(self) -> Iterator[None]:
        """Update the progress every few seconds during the body, from a thread of its own."""
        is_over = threading.Event()

        def tell() -> None:
            wait = _FIRST_SECONDS
            while not is_over.wait(wait):
                if not self.safely(self._tell):
                    return
                wait = _NEXT_SECONDS
            self.safely(self._tell)

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            is_over.set()
            teller.join()

    def _tell(self) -> None:
        with self._lock:
            now = time.monotonic()
            long = [
                (name, batch)
                for name, batch in self._batches.items()
                if batch.artifact
                or (batch.since and now - batch.since > _LONG_SECONDS and batch.finished < batch.scans)
            ]
            whole = self._whole
        if whole.scans and (whole.since or whole.artifact):
            self._show(whole, PROGRESS, f"{whole.finished} of {whole.scans} scans")
        for name, batch in long:
            self._show(batch, "", name)

    def _show(self, batch: _Batch, what: str, description: str) -> None:
        told = batch.percent, description
        if batch.artifact is None:
            batch.artifact = self.page.show(what, "progress", batch.percent, description)
        elif batch.told != told:
            self.page.change(batch.artifact, *told)
        batch.told = told

    def safely(self, show: Callable[[], None]) -> bool:
        """Call ``show``; True if it succeeded, else a warning says why not."""
        try:
            show()
        except Exception as error:  # the server's trouble is not the run's
            _log.warning("Prefect's page does not show all of this run", exc_info=True)
            self.following.on(Message.warning(f"Prefect's page does not show all of this run ({reason_of(error)})"))
            return False
        return True

    def show_results(
        self, outcomes: Sequence[ScanOutcome], state: str, record: Path, seconds: float, notes: Sequence[str] = ()
    ) -> None:
        """Report, table and pictures."""
        self.safely(lambda: self.page.show_results(outcomes, state, record, seconds, notes))


@contextlib.contextmanager
def following(output: Path) -> Iterator[PrefectProgress | None]:
    """Show the run in the body on Prefect's page; yields None if nobody follows it there."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not PREFECT_LOGGING_TO_API_ENABLED.value():
        yield None
        return
    with get_client(sync_client=True) as client:
        page = RunPage(client, context.flow_run.id, output)
        follower = PrefectProgress(page, get_run_logger(), listener())
        with listening(follower), follower.telling_progress():
            yield follower
