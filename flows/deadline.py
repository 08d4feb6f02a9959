"""When a run ends before its work does: at a time that was set, or when it is told to.

Every thread of a run asks between two pieces of work. What was begun is finished, unless the run was cancelled; what
was not is told as stopped, and the same command goes on with it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime

_began: ContextVar[datetime | None] = ContextVar("began", default=None)
# A clock that is set, and a machine that slept, are noticed this much later.
_LOOK_SECONDS = 5.0


@contextlib.contextmanager
def counting_from(when: datetime) -> Iterator[None]:
    """Have the time of a run that begins in the body count from ``when``: that of its command."""
    token = _began.set(when)
    try:
        yield
    finally:
        _began.reset(token)


def command_given() -> datetime | None:
    """From when the time of a run counts, where :func:`counting_from` says it."""
    return _began.get()


class Deadline:
    """The time that a run has; without ``until`` it has no end, but it can be cancelled."""

    def __init__(self, until: datetime | None = None) -> None:
        self.until = until
        self._ended = threading.Event()
        self._is_cancelled = False

    def cancel(self) -> None:
        """End now: somebody asked for it."""
        self._is_cancelled = True
        self._ended.set()

    @property
    def is_cancelled(self) -> bool:
        return self._is_cancelled

    @property
    def is_over(self) -> bool:
        """Whether nothing new may begin."""
        return self._ended.is_set() or self.seconds_left <= 0

    @property
    def seconds_left(self) -> float:
        """Until the end that was set, by the clock on the wall: infinite where there is none."""
        return float("inf") if self.until is None else (self.until - datetime.now(UTC)).total_seconds()

    @property
    def reason(self) -> str:
        """Why the run ended, for people."""
        if self._is_cancelled or self.until is None:
            return "the run was cancelled"
        return f"the time was up at {self.until.astimezone():%H:%M}"

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond the end."""
        self._ended.wait(max(0.0, min(seconds, self.seconds_left)))

    @contextlib.contextmanager
    def at_end(self, call: Callable[[], None]) -> Iterator[None]:
        """Call ``call`` once when the deadline comes within the body; it may take any lock that the body holds."""
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
