"""How many runs may colour at once on shared hardware: Prefect's global concurrency limits.

``prefect gcl create colorize-archive-gpu --limit 1`` lets one colour stage at a time use the GPUs behind a Prefect
server, over all its workers; ``colorize-archive-cpu`` does the same for engines that compute on processors. Other runs
keep reading and writing meanwhile. A limit that does not exist costs one request per run and delays nobody.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from engines.registry import processor_of
from flows.deadline import Deadline
from flows.events import Message, tell, warn
from flows.request import CUDA
from flows.run.jobs import RunContext

GPU_LIMIT, CPU_LIMIT = "colorize-archive-gpu", "colorize-archive-cpu"
# A waiting run checks its deadline this often, so that it stops waiting when cancelled.
_ASK_SECONDS = 5.0
# Shorter waits are not reported.
_TELL_SECONDS = 2.0


def limit_of(context: RunContext) -> str | None:
    """The limit that applies to a run, by where its engine computes; None if nobody has set it."""
    is_gpu = context.options.cluster.kind == CUDA or processor_of(context.choice.backend) == "gpu"
    name = GPU_LIMIT if is_gpu else CPU_LIMIT
    try:
        with get_client(sync_client=True) as client:
            client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        return None
    return name


@contextlib.contextmanager
def slot(limit: str | None, scans: str, deadline: Deadline) -> Iterator[None]:
    """Hold one place of ``limit`` for the body. If the deadline passes while waiting, the body runs without a place.

    It then has nothing to do, because no block goes to the cluster after the deadline.
    """
    if limit is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        asked = time.monotonic()
        is_told = False
        while not deadline.is_over:
            wait = max(0.1, min(_ASK_SECONDS if is_told else _TELL_SECONDS, deadline.seconds_left))
            if _is_held(stack, limit, wait):
                break
            if not is_told:
                warn(f"{scans}: another run has the last place of the limit {limit}", "waiting")
                is_told = True
        if is_told and not deadline.is_over:
            waited = time.monotonic() - asked
            tell(Message(f"{scans}: after {waited:.0f} s of waiting for {limit}", "going on"))
        yield


def _is_held(stack: contextlib.ExitStack, limit: str, seconds: float) -> bool:
    """True if a place became free within ``seconds``; it is held until the stack is closed."""
    held: Any = concurrency(limit, timeout_seconds=seconds, strict=False, raise_on_lease_renewal_failure=False)
    try:
        stack.enter_context(held)
    except TimeoutError:
        return False
    return True
