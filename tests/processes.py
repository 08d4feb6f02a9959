"""A command with all its processes, watched from outside."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Watched:
    """What a command did: exit code, standard error, wall seconds, and its peak memory over all processes."""

    code: int
    err: str
    seconds: float
    peak_bytes: int


def tree_bytes(process: psutil.Process) -> int:
    """Proportional set size of a process and all below it: shared pages counted once."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def run_watched(command: list[str], environment: Mapping[str, str] | None = None) -> Watched:
    """Run ``command`` to its end, sampling its memory ten times a second."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    done, peaks, watched = threading.Event(), [0], psutil.Process(process.pid)

    def watch() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            try:
                peaks.append(tree_bytes(watched))
            except psutil.Error:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, said = process.communicate()
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return Watched(process.returncode, said, seconds, max(peaks))
