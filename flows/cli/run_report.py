"""What a run prints: its bar, a line for each scan in work, one line for each that ended, and the end.

On a terminal the bar and the scans in work stand at the bottom and are redrawn; what ended scrolls away above them. A
log gets whole lines and, every half minute, one that says how far the run is. A quiet run prints what failed, and
warnings.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from flows.cli.console import DONE, FAILED, TIME_UP, errors
from flows.cli.json_output import EventLines
from flows.cli.work_left import ScanState, Snapshot, WorkLeft
from flows.events import Message, RunEvent, ScanFinished, ScanPlanned, StageBegan, TilesDone, listening
from flows.inputs import SHEET
from flows.outcome import ScanOutcome
from flows.request import CommandOptions
from pipeline.support.names import shown

LOG_SECONDS = 30.0
_REDRAWN_A_SECOND = 4
_SCANS_SHOWN = 8
_MOST_UNCHANGED = 20
_STOPPING = "stopping after the blocks in work; finished blocks stay"
# Ctrl-C is echoed after the last line as ^C, which must not wrap it.
_ECHO = 2
# Below these widths in columns, megapixels and tiles are left out.
_WIDE, _WIDER = 72, 100


class RunReport:
    """Prints a run's events on ``console``; a :class:`flows.events.Listener`."""

    def __init__(self, console: Console, quiet: bool = False, verbose: bool = False) -> None:
        self._console = console
        self._quiet, self._verbose = quiet, verbose
        self.work = WorkLeft()
        self._outcomes: list[ScanOutcome] = []
        self._unchanged: list[ScanOutcome] = []
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._is_drawn = console.is_terminal and not console.is_dumb_terminal and not quiet
        self._live = Live(
            _View(self.work),
            console=console,
            refresh_per_second=_REDRAWN_A_SECOND,
            transient=True,
            redirect_stdout=False,
        )
        # What a signal's handler has to say: it may not take a lock that the interrupted code holds.
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._voice = threading.Thread(target=self._speak, daemon=True)
        self._before: Any = None

    def __enter__(self) -> Self:
        if self._is_drawn:
            self._live.start()
        self._voice.start()
        # A process in the background ignores Ctrl-C, and goes on doing so.
        is_heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if is_heeded and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        self._said.put(None)
        self._voice.join()
        if self._is_drawn:
            self._live.stop()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._said.put(_STOPPING)
        signal.default_int_handler(number, frame)

    def _speak(self) -> None:
        """Print what was put to be said; in a log, also how far the run is."""
        has_stopped = False
        while True:
            try:
                line = self._said.get(timeout=LOG_SECONDS)
            except queue.Empty:
                if not self._is_drawn and not self._quiet and (line := progress_line(self.work.now())):
                    self._print(line)
                continue
            if line is None:
                return
            if not has_stopped:
                self._print(line)
            has_stopped = True

    def on(self, event: RunEvent) -> None:
        match event:
            case Message():
                if event.is_warning or not self._quiet:
                    self._print(event.line if self._verbose or not event.brief else event.brief)
            case ScanPlanned():
                self.work.plan(event.scan, event.tiles, event.megapixels, event.batch)
            case StageBegan():
                self.work.begin(event.scan, event.stage)
            case TilesDone():
                self.work.advance(event.scan, event.tiles, event.are_new)
            case ScanFinished():
                self._finish(event.outcome)

    def _finish(self, outcome: ScanOutcome) -> None:
        is_unchanged = outcome.status == "skipped" and bool(outcome.result)
        with self._lock:
            self._outcomes.append(outcome)
            if is_unchanged:
                self._unchanged.append(outcome)
        self.work.finish(outcome.scan, outcome.status == "done")
        if is_unchanged:
            return
        self._print_unchanged()
        if outcome.has_failed or not self._quiet:
            line = outcome_line(outcome)
            is_cut = self._is_drawn and outcome.status == "done"
            self._print(fitted(short_line(outcome), self._console.width) if is_cut else line)

    def _print_unchanged(self) -> None:
        """A line for each scan that was there already, unless they are many: the last line counts them."""
        with self._lock:
            unchanged, self._unchanged = self._unchanged, []
        if len(unchanged) <= _MOST_UNCHANGED and not self._quiet:
            for outcome in unchanged:
                self._print(outcome_line(outcome))

    def _print(self, line: str) -> None:
        self._console.print(shown(line), markup=False, highlight=False, soft_wrap=True)

    def print_summary(self, output: str) -> int:
        """Print what needs an operator's attention, how much was done, and where it can be looked at.

        Returns the exit code.
        """
        self._print_unchanged()
        outcomes = self._outcomes
        counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "stopped")}
        failed = sum(o.has_failed for o in outcomes)
        code = FAILED if failed else TIME_UP if counts["stopped"] else DONE
        if self._quiet:
            return code
        megapixels = sum(o.megapixels for o in outcomes if o.status == "done")
        seconds = time.monotonic() - self._started
        stopped = f", {counts['stopped']} stopped" if counts["stopped"] else ""
        if left_out := sum(o.is_left_out for o in outcomes):
            self._print(f"{left_out} left out after failures; --retry-quarantined tries them now")
        if forbidden := sum(o.is_forbidden for o in outcomes):
            self._print(f"{forbidden} left out, by policy.yaml")
        self._print(
            f"{counts['done']} done, {counts['skipped']} skipped, {failed} failed{stopped}; "
            f"{megapixels:.1f} megapixels in {seconds:.1f} s"
        )
        if (page := Path(output).expanduser().absolute() / SHEET).is_file():
            # Terminals open such an address at a click.
            self._print(f"contact sheet: {page.as_uri()}")
        return code


@contextlib.contextmanager
def reporting(own: CommandOptions) -> Iterator[RunReport]:
    """Print the events of the body as the command was asked to."""
    with (
        RunReport(errors, own.quiet, own.verbose) as report,
        listening(EventLines(report.work, report) if own.json else report),
    ):
        yield report


class _View:
    """The bar, and the scans in work below it, as wide as the terminal is now."""

    def __init__(self, work: WorkLeft) -> None:
        self._work = work

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with contextlib.suppress(ValueError, OSError):  # a terminal that is gone
            found = self._work.now()
            width = options.max_width
            lines = list(lines_of(found, width, options.height or console.height, options.ascii_only))
            yield Text("\n".join(lines), no_wrap=True, overflow="crop", end="")


def lines_of(found: Snapshot, width: int, height: int = 25, ascii_only: bool = False) -> Iterator[str]:
    """The lines at the bottom of a terminal of ``width`` x ``height`` characters; none is wider."""
    if not found.scans:
        return
    width = max(1, width - _ECHO)
    yield _bar_line(found, width, ascii_only)
    room = max(1, min(_SCANS_SHOWN, height - 4))
    # Those that are partly coloured say most.
    shown_scans = sorted(found.in_work, key=lambda scan: not 0 < scan.share < 1)
    if len(shown_scans) > room:
        shown_scans = shown_scans[: room - 1]
    for scan in shown_scans:
        yield _scan_line(scan, width)
    if more := len(found.in_work) - len(shown_scans):
        yield fitted(f"  and {more} more", width)


def _bar_line(found: Snapshot, width: int, ascii_only: bool) -> str:
    parts = [f"{found.share:4.0%}"]
    if width >= _WIDER and found.tiles:
        parts.append(f"{found.tiles_done}/{found.tiles} tiles")
    if width >= _WIDE and found.megapixels_per_second is not None:
        parts.append(f"{found.megapixels_per_second:.2f} MP/s")
    if found.seconds_left is not None:
        parts.append(f"{as_time(found.seconds_left)} left")
    count, facts = f"{found.scans_done}/{found.scans} scans", "  ".join(parts)
    bar = max(0, min(60, width - len(count) - len(facts) - 5))
    full = int(bar * found.share)
    done, rest = ("#", "-") if ascii_only else ("━", "─")
    return fitted(f"{count}  {done * full}{rest * (bar - full)}  {facts}", width)


def _scan_line(scan: ScanState, width: int) -> str:
    share = f"{scan.share:.0%}" if scan.stage == "colouring" else ""
    stage = f"{scan.stage:<9} {share:>4}"
    room = max(1, min(60, width - len(stage) - 5))
    return fitted(f"  {_end_of(shown(scan.name), room)}  {stage}", width)


def _end_of(name: str, width: int) -> str:
    """A name in exactly ``width`` columns; of a long one, its end, which tells neighbours apart."""
    if cell_len(name) <= width:
        return set_cell_size(name, width)
    while name and cell_len(name) >= width:
        name = name[1:]
    return set_cell_size(f"…{name}", width)


def fitted(line: str, width: int) -> str:
    """A line in at most ``width`` columns, less one, where a terminal would wrap it."""
    line = shown(line)
    return line if cell_len(line) < width else f"{set_cell_size(line, width - 2).rstrip()}…"


def progress_line(found: Snapshot) -> str:
    """How far a run is, for a log; empty before there is anything to tell."""
    if not found.scans or found.scans == found.scans_done:
        return ""
    parts = [f"{found.scans_done}/{found.scans} scans", f"{found.share:.0%}"]
    if found.tiles:
        parts.append(f"{found.tiles_done}/{found.tiles} tiles")
    if found.megapixels_per_second is not None:
        parts.append(f"{found.megapixels_per_second:.2f} MP/s")
    if found.seconds_left is not None:
        parts.append(f"{as_time(found.seconds_left)} left")
    return ", ".join(parts)


def as_time(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03, or 2:03."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def short_line(outcome: ScanOutcome) -> str:
    """A scan that is done, without what a narrow terminal has no room for."""
    seconds = sum(value for _, value in outcome.seconds)
    doubt = f", {outcome.quality}" if outcome.quality else ""
    name = outcome.result.rpartition("/")[2]
    return f"done     {name}  {outcome.megapixels:.1f} MP, {seconds:.1f} s{doubt}"


def outcome_line(outcome: ScanOutcome) -> str:
    """All about a scan that has ended."""
    if outcome.status == "done":
        seconds = " ".join(f"{name} {value:.1f} s" for name, value in outcome.seconds)
        quality = f"; {outcome.quality}" if outcome.quality else ""
        return f"done     {outcome.result}  ({outcome.megapixels:.1f} MP, {outcome.tiles} tiles{quality}; {seconds})"
    if outcome.status == "skipped":
        return f"skipped  {outcome.path}: {outcome.message}"
    if outcome.status == "stopped":
        return f"stopped  {outcome.message}"
    if outcome.status == "quarantined":
        return f"failed   {outcome.message}; quarantined, later runs leave it out until it changes"
    return f"failed   {outcome.message}"
