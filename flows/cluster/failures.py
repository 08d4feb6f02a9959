"""Errors of Dask that are nobody's fault in a scan or a program."""

from __future__ import annotations

from concurrent.futures import CancelledError

from distributed import KilledWorker
from distributed.comm import CommClosedError


def is_killed_worker(error: BaseException) -> bool:
    """True for a block that ended one worker after another, mostly by its memory."""
    return isinstance(error, KilledWorker)


def is_lost_cluster(error: BaseException) -> bool:
    """True where the scheduler or its workers went away."""
    return isinstance(error, CommClosedError | CancelledError)
