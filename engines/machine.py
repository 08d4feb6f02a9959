"""Memory and processors that this process may use, by the limits of its container or control group.

A container's limits are those of its control group, and a group never has more than its ancestors (systemd's slices, a
batch system's jobs, a pod around its containers), so all of them are read, up to the visible root. Version 2 of the
interface has one tree (``memory.max``, ``memory.high``, ``cpu.max``), version 1 one for each resource
(``memory.limit_in_bytes``, ``cpu.cfs_quota_us``), and a machine may have both.

References
----------
Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst; proc(5), /proc/PID/mountinfo.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil

_ROOT = Path("/")


def memory_bytes(root: Path = _ROOT) -> int:
    """Total memory for this process and its children: the machine's, or its container's if that is less."""
    return min([int(psutil.virtual_memory().total), *(limit for _, limit in _memory_limits(root))])


def memory_left_bytes(root: Path = _ROOT) -> int:
    """Memory that can be allocated now without swapping or being killed."""
    left = [int(psutil.virtual_memory().available)]
    for folder, limit in _memory_limits(root):
        used = _numbers(folder / "memory.current") or _numbers(folder / "memory.usage_in_bytes")
        left += [limit - used[0] + _cached_bytes(folder)] if used else []
    return max(0, min(left))


def processors(root: Path = _ROOT) -> int:
    """Processors that this process may use at once: a quota of one and a half is rounded up to two."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(root))]))


def no_semaphores() -> str:
    """The reason why processes cannot share locks or queues (such as no ``/dev/shm``); empty if they can."""
    try:
        multiprocessing.get_context("fork").Lock()  # with this start method it leaves no name behind
    except (OSError, ImportError, ValueError) as error:
        return str((error.strerror if isinstance(error, OSError) else None) or error)
    return ""


def _memory_limits(root: Path) -> Iterator[tuple[Path, int]]:
    for folder in _groups("memory", root):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            for limit in _numbers(folder / name)[:1]:
                yield folder, limit


def _cached_bytes(folder: Path) -> int:
    """Bytes of a group's inactive file cache, which the kernel frees before it kills a process."""
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0


def _quotas(root: Path) -> Iterator[float]:
    """The quota of each group around this process, in processors."""
    for folder in _groups("cpu", root):
        both = _numbers(folder / "cpu.max")
        both = both or _numbers(folder / "cpu.cfs_quota_us")[:1] + _numbers(folder / "cpu.cfs_period_us")[:1]
        if len(both) == 2 and both[1] > 0:
            yield both[0] / both[1]


def _numbers(path: Path) -> list[int]:
    """The numbers in a group's file; empty if it is missing or sets no limit (``max``, ``-1``)."""
    try:
        words = path.read_text(encoding="ascii").split()
        return [int(word) for word in words] if words and words[0] not in ("max", "-1") else []
    except (OSError, ValueError):
        return []


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of the groups that may limit a resource for this process, from its own group to the visible root."""
    try:
        memberships = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return  # not Linux, or no /proc
    for membership in memberships:
        _, _, rest = membership.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        for mount in mounts:
            fields, _, source = mount.partition(" - ")
            kind, *options = source.split()
            is_meant = kind == "cgroup" and controller in ",".join(options).split(",") if controllers else False
            if is_meant or (kind == "cgroup2" and not controllers):
                shown, point = (_unescaped(field) for field in fields.split()[3:5])
                yield from _upwards(path, shown, root / point.lstrip("/"))


def _upwards(path: str, shown: str, point: Path) -> Iterator[Path]:
    """The group ``path`` and its ancestors below the mount ``point``, where the group ``shown`` is the root."""
    below = os.path.relpath(path, shown)
    # A container sees its own group as the root, but the kernel may report the group's name outside the container.
    folder = point if below.startswith("..") else point / below
    while True:
        yield folder
        if folder == point or not folder.is_relative_to(point):
            return
        folder = folder.parent


def _unescaped(field: str) -> str:
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), field)
