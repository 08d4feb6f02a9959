"""Dask errors caused by lost workers or schedulers, not by a scan or a bug."""

from __future__ import annotations

from concurrent.futures import CancelledError

from distributed import KilledWorker
from distributed.comm import CommClosedError


def is_killed_worker(error: BaseException) -> bool:
    """True for a block that killed one worker after another, usually by its memory."""
    return isinstance(error, KilledWorker)


def is_lost_cluster(error: BaseException) -> bool:
    """True if the scheduler or its workers went away."""
    return isinstance(error, CommClosedError | CancelledError)
