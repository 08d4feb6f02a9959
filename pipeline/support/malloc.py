"""What this process asks of its allocator and its threads."""

from __future__ import annotations

import ctypes
import functools
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_MMAP_BYTES = 32 * 2**20  # the most that glibc takes
_TRIM_BYTES = 128 * 2**20
_SWITCH_SECONDS = 0.0005


@functools.cache
def tune_process() -> None:
    """Let freed arrays be used again, and threads take turns more often.

    glibc maps every array above its threshold anew, and the kernel clears each of its pages when it is first touched:
    work on strips, whose arrays live for milliseconds, spends a third of its time there, and several threads wait for
    each other in it. With this, freed memory of up to 128 MiB stays with the process. Where there is no glibc, it
    does not.

    zarr decodes in threads that are fed by one more, which waits for Python's lock up to 5 ms each time unless told
    otherwise; an export of 25 megapixels went from 36 to 46 megapixels a second with both.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
