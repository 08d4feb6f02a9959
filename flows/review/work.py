"""What the desk has made in the background: ``reprocess`` for one scan after the other, each in a process of its own.

The process takes the same lock on the folder, asks the same policy and leaves the same records as the command that a
person would type, and the desk goes on answering meanwhile.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.support.names import shown

_MOST_WAITING, _MOST_TOLD = 100, 50
_STOP_SECONDS = 20.0

Options = Mapping[str, float]


@dataclass
class Order:
    """Something that is to be made; ``steps`` are options of ``reprocess``, one run each."""

    number: int
    scan: str
    what: str
    steps: Sequence[Options]
    state: str = "waiting"
    said: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"number": self.number, "scan": self.scan, "what": self.what, "state": self.state, "said": self.said}


@dataclass
class Work:
    """The orders of one desk, done one after the other; threads may share it.

    Attributes
    ----------
    output : the folder of results
    done : called after each order
    """

    output: Path
    done: Callable[[], None]
    _orders: list[Order] = field(default_factory=list)
    _waiting: queue.SimpleQueue[Order | None] = field(default_factory=queue.SimpleQueue)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _thread: threading.Thread | None = None
    _process: subprocess.Popen[str] | None = None
    _is_closed: bool = False

    def order(self, scan: str, what: str, steps: Sequence[Options]) -> Order:
        """Have something made. Raises UsageError where too much waits already, or the same."""
        with self._lock:
            waiting = [each for each in self._orders if each.state in ("waiting", "running")]
            if len(waiting) >= _MOST_WAITING:
                raise UsageError(f"{_MOST_WAITING} scans wait to be coloured already; wait for one of them")
            if any(each.scan == scan and each.state == "waiting" for each in waiting):
                raise UsageError("this scan waits to be coloured already")
            made = Order(next(self._numbers), scan, what, steps)
            self._orders = [*self._orders, made][-(_MOST_WAITING + _MOST_TOLD) :]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="orders", daemon=True)
                self._thread.start()
        self._waiting.put(made)
        return made

    def orders(self) -> list[Order]:
        """The last orders, oldest first."""
        with self._lock:
            return self._orders[-_MOST_TOLD:]

    def close(self) -> None:
        """Stop what is being made, as Ctrl-C does: finished blocks stay."""
        with self._lock:
            self._is_closed = True
            process = self._process
        self._waiting.put(None)
        if process is not None and process.poll() is None:
            with contextlib.suppress(OSError):
                process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()

    def _run(self) -> None:
        while (order := self._waiting.get()) is not None and not self._is_closed:
            order.state = "running"
            try:
                order.state, order.said = self._make(order)
            except OSError as error:
                order.state, order.said = "failed", f"the command cannot be started ({error.strerror})"
            self.done()

    def _make(self, order: Order) -> tuple[str, str]:
        last = ""
        for step in order.steps:
            code, last = self._reprocess(order.scan, step)
            if code:
                return "failed", last or f"reprocess ended with code {code}"
        return "done", last

    def _reprocess(self, scan: str, options: Options) -> tuple[int, str]:
        """The exit code, and the last line that was printed."""
        words = [f"--{name}={value:g}" for name, value in options.items()]
        # A name is taken as a pattern where it looks like one.
        command = [sys.executable, "-m", "flows.cli", "reprocess", *words, "--", str(self.output), glob.escape(scan)]
        with self._lock:
            if self._is_closed:
                return 130, "the desk was closed"
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        last = ""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                last = line.strip() or last
        return self._process.wait(), shown(last.replace(f"{self.output}/", ""))[:500]
