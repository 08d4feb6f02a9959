"""When a run ends before its work is done: at its deadline, or when it is cancelled.

Every thread of a run checks between two pieces of work. Work that was begun is finished, unless the run was cancelled.
The rest is reported as stopped, and the same command resumes it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime

_began: ContextVar[datetime | None] = ContextVar("began", default=None)
# Longest delay until a clock change, or the wake-up of a suspended machine, is noticed.
_LOOK_SECONDS = 5.0


@contextlib.contextmanager
def counting_from(when: datetime) -> Iterator[None]:
    """Let the time of a run that starts in the body count from ``when``, the time of its command."""
    token = _began.set(when)
    try:
        yield
    finally:
        _began.reset(token)


def command_given() -> datetime | None:
    """When the time of the current run began, as set by :func:`counting_from`; else None."""
    return _began.get()


class Deadline:
    """The end of a run's time. Without ``until`` there is none, but the run can be cancelled."""

    def __init__(self, until: datetime | None = None) -> None:
        self.until = until
        self._ended = threading.Event()
        self._is_cancelled = False

    def cancel(self) -> None:
        """End the run now, because somebody asked for it."""
        self._is_cancelled = True
        self._ended.set()

    @property
    def is_cancelled(self) -> bool:
        return self._is_cancelled

    @property
    def is_over(self) -> bool:
        """True if no new work may begin."""
        return self._ended.is_set() or self.seconds_left <= 0

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline by the system clock; infinite if there is none."""
        return float("inf") if self.until is None else (self.until - datetime.now(UTC)).total_seconds()

    @property
    def reason(self) -> str:
        """Why the run ended, for people."""
        if self._is_cancelled or self.until is None:
            return "the run was cancelled"
        return f"the time was up at {self.until.astimezone():%H:%M}"

    def pause(self, seconds: float) -> None:
        """Sleep, but not past the deadline."""
        self._ended.wait(max(0.0, min(seconds, self.seconds_left)))

    @contextlib.contextmanager
    def at_end(self, call: Callable[[], None]) -> Iterator[None]:
        """Call ``call`` once if the deadline passes within the body; it may take any lock that the body holds."""
        if self.until is None:
            yield
            return
        is_left = threading.Event()

        def watch() -> None:
            while not is_left.wait(max(0.0, min(_LOOK_SECONDS, self.seconds_left))):
                if self.is_over:
                    call()
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_left.set()
            watcher.join()


NO_DEADLINE = Deadline()
