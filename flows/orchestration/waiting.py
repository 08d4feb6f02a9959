"""How long to wait for a process that starts: as long as it lives and gets on, however slow the machine makes it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable

import psutil

# A process that computes nothing and reads nothing for so long is not slow, it hangs.
STUCK_SECONDS = 120.0
# One that does a little all the time may hang too.
MOST_SECONDS = 1800.0
TELL_SECONDS = 30.0
_ERROR = re.compile(r"[\w.]+(Error|Exception|Interrupt)\b")


class Progress:
    """What a process and those below it have done since they were last looked at.

    Parameters
    ----------
    pid : of the process
    tell : is given, every half minute, how many seconds the wait has taken
    """

    def __init__(self, pid: int, tell: Callable[[float], None]) -> None:
        self._pid = pid
        self._tell = tell
        self._began = self._changed = self._told = time.monotonic()
        self._done = 0.0

    def is_stuck(self) -> bool:
        """Look, and tell where it is time to; whether there is nothing to wait for any more."""
        now, done = time.monotonic(), _done(self._pid)
        if done != self._done:
            self._done, self._changed = done, now
        if now - self._told >= TELL_SECONDS:
            self._told = now
            self._tell(now - self._began)
        return now - self._changed > STUCK_SECONDS or now - self._began > MOST_SECONDS

    @property
    def in_words(self) -> str:
        """Of one that is stuck."""
        now = time.monotonic()
        return f"does not answer after {now - self._began:.0f} s, and did nothing for {now - self._changed:.0f} s"


def _done(pid: int) -> float:
    """Seconds of processors and numbers of reads of a process and all below it: what matters is that it grows."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, AttributeError):  # not every system counts reads
                times = each.cpu_times()
                total += times.user + times.system
                total += each.io_counters().read_count
    return total


def last_words(said: str) -> str:
    """The line of a program's last words that says most: its last error rather than what came after it."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return ([*lines, *filter(_ERROR.match, lines)] or ["it said nothing"])[-1][:300]
