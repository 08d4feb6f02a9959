"""The processes of a set-up: started with its mark, watched, and ended, whatever became of what was between."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flows.orchestration.waiting import Progress, last_words
from pipeline.errors import ColorizeError, UsageError

MARK = "COLORIZE_ARCHIVE_SET_UP"
_POLL_SECONDS = 0.2
_END_SECONDS = 20
# Its database is whole however it ends, and while it starts it hears nobody.
_SERVER_END_SECONDS = 5
# A child that dies more often than this within the hour does not start at all.
_MOST_DEATHS = 5
_LOG_BYTES = 10 * 2**20


class SetUpError(ColorizeError):
    """A part of the set-up did not start, or does not stay."""


@dataclass(frozen=True)
class Place:
    """Where a set-up keeps its things: the folder ``colorize-archive`` in Prefect's home."""

    home: Path

    @property
    def folder(self) -> Path:
        return self.home / "colorize-archive"

    @property
    def state(self) -> Path:
        return self.folder / "up.json"

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def processes(self) -> list[psutil.Process]:
        """All that this set-up started, and what those started, but not this process."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and process.environ().get(MARK) == str(self.folder):
                    found.append(process)
        return found


@dataclass
class Child:
    """A ``prefect`` command that is to run as long as the set-up does.

    Attributes
    ----------
    name : for the operator, and of its log
    words : of the command, after ``prefect``
    process : None before it is first started
    deaths : seconds of ``time.monotonic``, of the last hour
    log_begins : byte of the log at which this start's own begins
    """

    name: str
    words: list[str]
    place: Place
    process: subprocess.Popen[bytes] | None = None
    deaths: list[float] = field(default_factory=list)
    log_begins: int = 0

    def start(self) -> None:
        """Start it, with the mark of its set-up; what it says goes to its log."""
        log = self.place.log(self.name)
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".1.log"))
        with log.open("ab") as stream:
            self.log_begins = stream.tell()
            # A session of its own: Ctrl-C is for this process, which then ends the others in order.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *self.words],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**os.environ, MARK: str(self.place.folder)},
                start_new_session=True,
            )

    @property
    def has_died(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def wait(self, is_ready: Callable[[], bool]) -> None:
        """Until it answers. Raises SetUpError."""
        assert self.process is not None
        progress = Progress(self.process.pid, self._tell_slow)
        while not is_ready():
            if self.has_died or progress.is_stuck():
                why = "ended" if self.has_died else progress.in_words
                raise SetUpError(f"{self.name} {why}: {self.last_words()}; see {self.place.log(self.name)}")
            time.sleep(_POLL_SECONDS)

    def _tell_slow(self, seconds: float) -> None:
        if self.name != "up":  # it tells of its own parts
            tell(self.name, f"has not started in {seconds:.0f} s; this machine is busy, or slow")

    def last_words(self) -> str:
        """Of this time: its log keeps those of earlier starts too."""
        with self.place.log(self.name).open("rb") as log:
            log.seek(self.log_begins)
            return last_words(log.read().decode(errors="replace"))

    @property
    def last_code(self) -> str:
        """How it ended."""
        code = self.process.returncode if self.process else 0
        return signal.Signals(-code).name if code < 0 else f"code {code}"

    def start_again(self) -> None:
        """After it died. Raises SetUpError where it does so all the time."""
        self.deaths = [at for at in self.deaths if at > time.monotonic() - 3600] + [time.monotonic()]
        if len(self.deaths) > _MOST_DEATHS:
            raise SetUpError(f"{self.name} died {_MOST_DEATHS} times: {self.last_words()}; see its log")
        self.start()

    def end(self) -> None:
        """End it and wait until it has gone; nothing where it was never started."""
        if self.process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                end_all([psutil.Process(self.process.pid)], _SERVER_END_SECONDS)
            self.process.wait()


def end_all(processes: list[psutil.Process], seconds: float = _END_SECONDS) -> None:
    """Ask them to end, wait for ``seconds``, and end those that do not."""
    for ask in ("terminate", "kill"):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(process, ask)()
        _, processes = psutil.wait_procs(processes, timeout=seconds)


def kill_all(processes: list[psutil.Process]) -> None:
    """Without a word to anybody: runs stay as begun, and are taken up."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=_END_SECONDS)


def tell(what: str, text: str) -> None:
    """One line for the operator."""
    print(f"{what:<10}{text}", flush=True)


def answers(url: str) -> bool:
    """Whether a Prefect server is there and well."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except OSError:
        return False


def check_port(port: int) -> None:
    """Raises UsageError where another program has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            server = " (a Prefect server)" if answers(f"http://127.0.0.1:{port}/api") else ""
            raise UsageError(
                f"port {port}: taken by another program{server}, nothing was started; give another --port, or end that"
            ) from error
