"""A run in which nothing is due: it is recorded like any other, and starts nothing."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from flows.catalogue.database import FILE as CATALOGUE
from flows.catalogue.database import Catalogue, KnownRun
from flows.events import Message, ScanFinished, tell
from flows.inputs import SHEET, SearchReport
from flows.options import RunOptions
from flows.run.endings import RunEnd, ended, name_of
from flows.run.host import Host
from flows.run.last_look import keep
from flows.run.run_record import NO_ENGINE, record_of, write_run
from flows.run.unchanged import Unchanged
from flows.run.withdrawal import find_withdrawals
from pipeline.results.run_spec import utc_now
from pipeline.support.files import folder_lock

_log = logging.getLogger(__name__)
Look = Callable[[Catalogue], Unchanged | None]
"""What becomes of all scans if nothing is due, by what the catalogue knows."""


def left_alone(options: RunOptions, look: Look, kind: str, ignored: SearchReport, host: Host) -> RunEnd | None:
    """The end of a run in which nothing is due; None if there is something to do, or if that is not known."""
    began, output = time.monotonic(), options.output
    if not (output / CATALOGUE).is_file():
        return None
    with folder_lock(output), contextlib.ExitStack() as stack:
        started = utc_now()
        try:
            catalogue = stack.enter_context(Catalogue.open(output, is_locked=True))
            catalogue.forget_gone()
            # What may no longer go out is for the run to withdraw.
            looked = None if find_withdrawals(output) else look(catalogue)
        except Exception:  # the run itself reports what is wrong with a catalogue
            _log.info("nothing could be looked up", exc_info=True)
            return None
        if looked is None:
            return None
        outcomes = looked.outcomes
        host.begin()
        page = stack.enter_context(host.following(output))
        for line in ignored.lines:
            tell(Message(line))
        for outcome in outcomes:
            tell(ScanFinished(outcome))
        record, state = record_of(output, started), name_of(outcomes)
        write_run(record, kind, started, None, outcomes, state, ignored)
        if looked.state is not None:
            keep(output, looked.state, record)
        run = KnownRun(record.stem, kind, started, utc_now(), NO_ENGINE, "", state, skipped=len(outcomes))
        catalogue.add_run(run)
        if not (output / SHEET).exists():
            _make_sheet(output)
        if page is not None:
            page.show_results(outcomes, state, record, time.monotonic() - began, ignored.lines)
        return ended(outcomes, record, ignored)


def _make_sheet(output: Path) -> None:
    from flows.run.contact_sheet import refresh_sheet

    refresh_sheet(output)
