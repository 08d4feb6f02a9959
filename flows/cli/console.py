"""How the command reports errors: one line, and an exit code."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import typer
from rich.console import Console

from pipeline.support.names import shown
from pipeline.support.text import one_line

DONE, FAILED, USAGE, TIME_UP, STOPPED = 0, 1, 2, 3, 130

errors = Console(stderr=True, soft_wrap=True, highlight=False)


class _Outlet(io.FileIO):
    """A file descriptor to write to; after its reader has gone, output is dropped without an error."""

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]  # None if a pipe is full
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Keep printing from ending the command or changing its exit code.

    The reader of a pipe may stop early. Characters that the terminal's encoding lacks are spelt out.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, or not a stream of the system
            stream.flush()
            outlet = io.BufferedWriter(_Outlet(stream.fileno(), "wb", closefd=False))
            made = io.TextIOWrapper(
                outlet, stream.encoding, "backslashreplace", line_buffering=name == "stderr" or stream.line_buffering
            )
            setattr(sys, name, made)


def say(line: object) -> None:
    """Print one line, safe for a terminal whatever names are in it."""
    typer.echo(shown(line))


def warn(line: object) -> None:
    """Print one line to standard error."""
    errors.print(f"colorize-archive: {one_line(line)}", markup=False)


@contextlib.contextmanager
def live_line(is_wanted: bool = True) -> Iterator[tuple[Callable[[str], None], Callable[[str], None] | None]]:
    """Yield what prints a line, and what shows one at the bottom of a terminal, in the place of the one before.

    Printed lines scroll away above it. Elsewhere the second is None.
    """
    if not (is_wanted and errors.is_terminal and sys.stdout.isatty()) or errors.is_dumb_terminal:
        yield say, None
        return
    from rich.live import Live
    from rich.text import Text

    with Live(Text(""), console=errors, transient=True, refresh_per_second=4) as live:
        yield (
            lambda line: live.console.print(shown(line), markup=False, highlight=False, soft_wrap=True),
            lambda line: live.update(Text(shown(line), no_wrap=True, overflow="ellipsis")),
        )


def answer_usage(error: Exception) -> int | None:
    """Print what is wrong with a command line in one line, or the help that was asked for; returns the exit code.

    None for errors that are not of the command line's parser, whose classes are private to Typer.
    """
    context, code = getattr(error, "ctx", None), getattr(error, "exit_code", None)
    if not hasattr(error, "format_message") or not isinstance(code, int):
        return None
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
    else:
        path = context.command_path if context is not None else "colorize-archive"
        warn(f"{error.format_message().rstrip('.')}; {path} --help lists what there is")
    return code


def stop(message: object, code: int) -> NoReturn:
    """Print one line and end with ``code``."""
    warn(message)
    raise typer.Exit(code)
