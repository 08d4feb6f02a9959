"""How the command speaks of errors: one line, and an exit code."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, NoReturn

import typer
from rich.console import Console

from pipeline.support.names import shown
from pipeline.support.text import one_line

DONE, FAILED, USAGE, TIME_UP, STOPPED = 0, 1, 2, 3, 130

errors = Console(stderr=True, soft_wrap=True, highlight=False)


class _Outlet(io.FileIO):
    """A descriptor to write to; what comes after its reader has gone is lost without an error."""

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]  # none where a pipe is full for now
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Let what is printed neither end the command nor change its exit code, whoever reads it.

    The reader of a pipe may have read enough, and letters that the terminal's encoding lacks are spelt out.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, or none of the system's
            stream.flush()
            outlet = io.BufferedWriter(_Outlet(stream.fileno(), "wb", closefd=False))
            made = io.TextIOWrapper(
                outlet, stream.encoding, "backslashreplace", line_buffering=name == "stderr" or stream.line_buffering
            )
            setattr(sys, name, made)


def say(line: object) -> None:
    """Print one line that does nothing to a terminal, whatever names are in it."""
    typer.echo(shown(line))


def stop(message: object, code: int) -> NoReturn:
    """Print one line and end with ``code``."""
    errors.print(f"colorize-archive: {one_line(message)}", markup=False)
    raise typer.Exit(code)
