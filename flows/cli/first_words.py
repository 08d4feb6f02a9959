"""What ``run`` says and refuses before anything is imported that takes time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from glob import has_magic
from importlib.metadata import version
from pathlib import Path

from flows.cli.console import USAGE, errors, stop
from flows.request import OBJECTS
from pipeline.support.names import shown

_MOST_NAMED = 3


def say_first(inputs: Sequence[str]) -> None:
    """Tell who waits at a terminal that the command has begun."""
    if errors.is_terminal:
        errors.print(f"colorize-archive {version('colorize-archive')}: looking at {_listed(inputs)} ...", markup=False)


def refuse_missing(inputs: Sequence[str]) -> None:
    """End the command if none of the inputs is there. One of several that is missing is a failure of its own."""
    if inputs and not any(has_magic(text) or _is_there(text) for text in inputs):
        stop(f"{_listed(inputs)}: no such file or folder, so nothing can be coloured; check the name", USAGE)


def _is_there(text: str) -> bool:
    try:
        return text.startswith(OBJECTS) or os.path.lexists(Path(text).expanduser())
    except (OSError, RuntimeError, ValueError):
        return True  # not a possible name, of which the search says more


def _listed(inputs: Sequence[str]) -> str:
    more = f" and {len(inputs) - _MOST_NAMED} more" if len(inputs) > _MOST_NAMED else ""
    return ", ".join(map(shown, inputs[:_MOST_NAMED])) + more
