"""The log of a run, ``runs/<id>.log`` beside its record: its messages, and unforeseen errors with their tracebacks.

Every module logs to the logger of its own name. Only the owner of a run, or the command outside of a run, attaches a
file to these loggers and detaches it again: importing this project changes no logging.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from platformdirs import user_log_path

from flows.events import Message, RunEvent, ScanFinished, listener
from pipeline.support.names import shown
from pipeline.support.text import one_line

_OURS = ("pipeline", "flows", "engines", "colorize_archive")
_LAYOUT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_log = logging.getLogger(__name__)


class _LogFile(logging.FileHandler):
    """A log file, created with its first line. If writing fails, errors go to standard error and the run goes on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace", delay=True)

    def _open(self) -> Any:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the name of the base class
        if record.levelno >= logging.ERROR and logging.lastResort is not None:
            logging.lastResort.handle(record)


@contextlib.contextmanager
def logging_to(path: Path, errors_too: bool = False, level: int = logging.INFO) -> Iterator[None]:
    """In the body, send our loggers' records of ``level`` and above to ``path`` alone.

    With ``errors_too``, errors also go to standard error, which in a deployment is the worker's log.
    """
    handlers: list[logging.Handler] = [_LogFile(path)]
    if errors_too:
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[-1].setLevel(logging.ERROR)
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_LAYOUT))
    loggers = [logging.getLogger(name) for name in _OURS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
        # Bypass the root logger: Prefect gives it a handler that writes to the terminal.
        logger.propagate = False
        for handler in handlers:
            logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, (level, propagates) in zip(loggers, before, strict=True):
            for handler in handlers:
                logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagates
        for handler in handlers:
            handler.close()


class LoggedListener:
    """A :class:`flows.events.Listener` that logs a run's events and passes them on to the previous listener."""

    def __init__(self) -> None:
        self._next = listener()

    def on(self, event: RunEvent) -> None:
        self._next.on(event)
        match event:
            case Message():
                _log.log(logging.WARNING if event.is_warning else logging.INFO, "%s", shown(event.line))
            case ScanFinished(outcome) if outcome.has_failed:
                _log.warning("%s: %s", outcome.status, shown(outcome.message))
            case ScanFinished(outcome) if outcome.status != "skipped":  # thousands may be skipped
                _log.info("%s: %s", outcome.status, shown(outcome.message))


def own_log() -> Path:
    """Path of the command's log for errors outside of any run: in the user's log folder, or in a temporary one."""
    name = f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}-{os.getpid()}.log"
    folder = user_log_path("colorize-archive")
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return folder / name
    return Path(tempfile.gettempdir()) / f"colorize-archive-{name}"


def keep_traceback(error: BaseException, what: str) -> Path:
    """Write the traceback of an ``error`` outside of any run to a log of its own, and return the log's path."""
    path = own_log()
    with logging_to(path):
        _log.error("%s", shown(what), exc_info=error)
    return path


def in_one_line(error: BaseException) -> str:
    """Type and message of an unforeseen error."""
    return f"{type(error).__name__}: {one_line(error)}"
