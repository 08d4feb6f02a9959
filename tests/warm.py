"""``colorize-archive`` in processes forked from one that has imported it: half of a small run's time is imports.

Each command is a process of its own all the same: with its arguments, its standard output and error, its exit code,
and with what libraries do when an interpreter ends. What a new interpreter does before ``main`` is not seen by tests
that use this: they are for what commands do.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.patience import PATIENCE_SECONDS, wait_until

# What the commands import when they are called.
_MODULES = (
    "distributed",
    "flows.orchestration.colorize",
    "flows.run.compare",
    "flows.cli.report",
    "flows.cli.run_report",
    "flows.orchestration.reprocess",
    "flows.orchestration.server",
    "flows.run.requests",
    "flows.sheet.contact_sheet",
    "flows.run.reprocess_plan",
    "pipeline.results.verify",
)


@dataclass(frozen=True)
class WarmCommand:
    """Asks the process that is ready to fork, at ``address``, for commands."""

    address: Path

    def run(self, *words: object) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of ``colorize-archive`` with the given words."""
        out, err = _Pipe(), _Pipe()
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(self.address))
            request = json.dumps({"words": list(map(str, words)), "folder": str(Path.cwd())}).encode()
            socket.send_fds(asked, [len(request).to_bytes(8, "big")], [out.entrance, err.entrance])
            asked.sendall(request)
            out.close_entrance()
            err.close_entrance()
            with asked.makefile("rb") as answers:
                process = int(answers.readline())
                deadline = time.monotonic() + PATIENCE_SECONDS
                texts = [pipe.read_until(deadline) for pipe in (out, err)]
                asked.settimeout(max(0.1, deadline - time.monotonic()))
                try:
                    if None in texts:
                        raise TimeoutError
                    code = int(answers.readline())
                except TimeoutError:
                    os.kill(process, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(list(map(str, words)), PATIENCE_SECONDS) from None
        return code, *(str(text) for text in texts)


class _Pipe:
    """Everything that processes write into it until the last of them has closed it."""

    def __init__(self) -> None:
        exit_, self.entrance = os.pipe()
        self._file = os.fdopen(exit_, "rb")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._file:
            self._text = self._file.read().decode()

    def close_entrance(self) -> None:
        os.close(self.entrance)

    def read_until(self, deadline: float) -> str | None:
        self._thread.join(max(0, deadline - time.monotonic()))
        return None if self._thread.is_alive() else self._text.replace("\r\n", "\n")


@contextlib.contextmanager
def warm_command(environment: Mapping[str, str], folder: Path) -> Iterator[WarmCommand]:
    """Start the process whose forks are the commands, in ``environment``; it listens in ``folder``."""
    address, log = folder / "warm", folder / "warm.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(address)],
            cwd=Path(__file__).parents[1],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        wait_until(lambda: address.exists() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield WarmCommand(address)
    finally:
        process.terminate()
        process.wait()


def _import_all() -> None:
    """In the environment in which a run imports Prefect."""
    from flows.cli.app import _ENVIRONMENT

    before = dict(os.environ)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for module in _MODULES:
        importlib.import_module(module)
    os.environ.clear()
    os.environ.update(before)


def _serve(address: str) -> BinaryIO | None:
    """Fork for every request; returns in the process that is to be the command."""
    with socket.socket(socket.AF_UNIX) as listening:
        bound = Path(f"{address}.part")
        listening.bind(str(bound))
        listening.listen()
        bound.rename(address)
        while True:
            asked, _ = listening.accept()
            with asked:
                if os.fork() == 0:
                    listening.close()
                    return _told(asked)
            _bury()


def _bury() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _told(asked: socket.socket) -> None:
    """Fork the command, tell its number and later its exit code; returns in the command."""
    size, files, _, _ = socket.recv_fds(asked, 8, 2)
    with asked.makefile("rb") as questions:
        request = json.loads(questions.read(int.from_bytes(size, "big")))
    process = os.fork()
    if process != 0:
        for file in files:
            os.close(file)
        asked.sendall(f"{process}\n".encode())
        _, status = os.waitpid(process, 0)
        asked.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    asked.close()
    for file, standard in zip(files, (1, 2), strict=True):
        os.dup2(file, standard)
        os.close(file)
    os.chdir(request["folder"])
    sys.argv = ["colorize-archive", *request["words"]]
    sys.orig_argv = [sys.executable, "-m", "flows.cli", *request["words"]]


def _main() -> None:
    from flows.cli.app import main

    _import_all()
    gc.freeze()
    _serve(sys.argv[1])
    main()


if __name__ == "__main__":
    _main()
