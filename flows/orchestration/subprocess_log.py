"""Commands of this project inside a flow: each runs as a process, and its output goes to the run's log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_STOP_SECONDS = 60
_LINES_KEPT = 20


@dataclass(frozen=True)
class Ended:
    """The exit code of a command and the last line that it wrote."""

    code: int
    last_line: str


def run_logged(words: list[str], say: Callable[[str], None]) -> Ended:
    """Run ``colorize-archive`` with ``words``, and pass its lines to ``say`` as they come.

    If the run is stopped, the command gets SIGINT, as from Ctrl-C, so that it can save its progress.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
    )
    lines: deque[str] = deque(maxlen=_LINES_KEPT)
    try:
        for line in process.stdout or ():
            if line.strip():
                lines.append(line.rstrip())
                say(lines[-1])
        return Ended(process.wait(), lines[-1] if lines else "")
    except BaseException:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
