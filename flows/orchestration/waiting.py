"""How long to wait for a process to start: as long as it is alive and makes progress, however slow the machine is."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable

import psutil

# A process that neither computes nor reads for this long is not slow: it hangs.
STUCK_SECONDS = 120.0
# A process that keeps doing a little may hang, too.
MOST_SECONDS = 1800.0
TELL_SECONDS = 30.0
_ERROR = re.compile(r"[\w.]+(Error|Exception|Interrupt)\b")


class Progress:
    """Watches whether a process and its children make progress.

    Parameters
    ----------
    pid : the process
    tell : called every half minute with the seconds waited so far
    """

    def __init__(self, pid: int, tell: Callable[[float], None]) -> None:
        self._pid = pid
        self._tell = tell
        self._began = self._changed = self._told = time.monotonic()
        self._done = 0.0

    def is_stuck(self) -> bool:
        """Check for progress, and report the wait if that is due; True if waiting longer is pointless."""
        now, done = time.monotonic(), _done(self._pid)
        if done != self._done:
            self._done, self._changed = done, now
        if now - self._told >= TELL_SECONDS:
            self._told = now
            self._tell(now - self._began)
        return now - self._changed > STUCK_SECONDS or now - self._began > MOST_SECONDS

    @property
    def in_words(self) -> str:
        """A description of a stuck process."""
        now = time.monotonic()
        return f"does not answer after {now - self._began:.0f} s, and did nothing for {now - self._changed:.0f} s"


def _done(pid: int) -> float:
    """CPU seconds plus read counts of a process and its children: it only matters that the sum grows."""
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
    """The most telling line of a program's output: its last error, else its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return ([*lines, *filter(_ERROR.match, lines)] or ["it said nothing"])[-1][:300]
