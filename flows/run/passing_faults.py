"""Drives that are away for a moment: which errors say so, and work that is tried again."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from flows.deadline import Deadline
from flows.events import warn
from pipeline.errors import ScanUnreachableError
from pipeline.support.text import reason_of

# What a network drive or a machine behind it says when it is away for a moment; and how long to wait before each try.
_PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EREMOTEIO,
    errno.ENOTCONN,
    errno.EAGAIN,
    errno.EBUSY,
}
_WAITS_SECONDS = (1.0, 5.0)
T = TypeVar("T")


def is_passing(error: BaseException) -> bool:
    """Whether an error is, or comes from, one that a drive gives when it is away for a moment."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ScanUnreachableError) or (isinstance(seen, OSError) and seen.errno in _PASSING):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def trying_again(work: Callable[[], T], scan: str, deadline: Deadline, waits: tuple[float, ...] = _WAITS_SECONDS) -> T:
    """Do ``work``, and repeat it after each of ``waits`` seconds while the drive is away; its last error is raised."""
    for seconds in waits:
        try:
            return work()
        except Exception as error:
            if deadline.is_over or not is_passing(error):
                raise
            warn(f"{scan}: {reason_of(error)}; tried again in {seconds:g} s", "again")
        deadline.pause(seconds)
    return work()
