"""How the command speaks of errors: one line, and an exit code."""

from __future__ import annotations

from typing import NoReturn

import typer
from rich.console import Console

DONE, FAILED, USAGE, TIME_UP, STOPPED = 0, 1, 2, 3, 130

errors = Console(stderr=True, soft_wrap=True, highlight=False)


def stop(message: object, code: int) -> NoReturn:
    """Print one line and end with ``code``."""
    errors.print(f"colorize-archive: {' '.join(str(message).split())}", markup=False)
    raise typer.Exit(code)
