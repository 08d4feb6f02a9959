"""The contact sheet at the end of a run, whose failure is not the run's."""

from __future__ import annotations

import logging
from pathlib import Path

from flows.catalogue.database import Catalogue
from flows.events import warn
from flows.sheet.contact_sheet import write_sheet
from pipeline.support.text import reason_of

_log = logging.getLogger(__name__)


def refresh_sheet(output: Path) -> None:
    """Write the contact sheet. A failure is only a warning, because the results exist."""
    try:
        with Catalogue.open(output, is_locked=True) as catalogue:
            write_sheet(output, catalogue)
    except Exception as error:  # no error of the sheet may fail the run
        _log.warning("no contact sheet", exc_info=True)
        warn(f"no contact sheet ({reason_of(error)}); colorize-archive sheet makes it")
