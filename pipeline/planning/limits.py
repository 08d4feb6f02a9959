"""The least memory that a run needs, the limit that is taken where none is given, and whether one can be kept to.

This is known before anything of a scan is, so nothing is imported that handles pictures.
"""

from __future__ import annotations

from pipeline.errors import UsageError

MIB = 2**20
# Resident bytes before any scan: client with flow and scheduler; embedded server; one worker with an engine.
CLIENT_BYTES = 330 * MIB
SERVER_BYTES = 260 * MIB
WORKER_BYTES = 420 * MIB
# Decoded tiles in a reader's cache, and encoded ones that wait for their turn.
KEPT_BYTES = 64 * MIB
# No scan fits below this: the processes alone need it.
LEAST_BYTES = CLIENT_BYTES + SERVER_BYTES + WORKER_BYTES + KEPT_BYTES
# The default memory limit on a machine with two processors, and the increment for each further processor.
_DEFAULT_BYTES, _PROCESSOR_BYTES = 2 * 2**30, 2**29


def default_limit_bytes(memory_bytes: int, processors: int) -> int:
    """The default memory limit on a machine or in a container with ``memory_bytes``.

    2 GiB, and half a GiB for each processor beyond two, which their blocks need; but at most half of the memory,
    because other programs run too. With less than 4 GiB of memory it is still 2 GiB, but at most seven eighths.

    >>> [default_limit_bytes(gib << 30, processors) / 2**30 for gib, processors in [(24, 2), (64, 16), (8, 16), (2, 4)]]
    [2.0, 9.0, 4.0, 1.75]
    """
    wanted = _DEFAULT_BYTES + max(0, processors - 2) * _PROCESSOR_BYTES
    return max(min(wanted, memory_bytes // 2), min(_DEFAULT_BYTES, memory_bytes * 7 // 8))


def check_limit(limit_bytes: int, memory_bytes: int) -> None:
    """Raises UsageError if not even the processes of a run fit, before any of them is started."""
    if min(limit_bytes, memory_bytes) < LEAST_BYTES:
        least = f"a run's processes alone need {LEAST_BYTES / 2**30:.2f} GiB of memory, which"
        raise UsageError(too_much(least, LEAST_BYTES, limit_bytes, memory_bytes, "or more"), "limit-memory")


def too_much(what: str, needed_bytes: int, limit_bytes: int, memory_bytes: int | None, instead: str) -> str:
    """The message for a need above a limit, with the remedy."""
    if memory_bytes is not None and needed_bytes > memory_bytes:
        return (
            f"{what} is above the {memory_bytes / 2**30:.2f} GiB that this machine, or its container, has: processes "
            "would be killed; give it more"
        )
    return (
        f"{what} is above --limit-memory {limit_bytes / 2**30:.2f} GiB: the machine could run out; "
        f"give --limit-memory {-(-needed_bytes // 2**28) / 4:g}GiB, {instead}"
    )
