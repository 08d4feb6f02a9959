"""The command ``doctor``: one page about this machine, to read or to send to a colleague."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import DONE, FAILED, say
from flows.cli.json_output import print_json

if TYPE_CHECKING:
    from flows.service.doctor import Finding

_WIDTH, _INDENT = 100, 24


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(doctor)


def doctor(
    output: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="A folder for results, to try to write there too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this machine has and what is wrong with it: versions, engines, GPU, memory, limits, folders, Prefect.

    Exit code 0: nothing is wrong; 1: something is.
    """
    from flows.service.doctor import examine, to_json

    found = examine(output)
    if as_json:
        print_json("doctor", to_json(found))
    else:
        for line in _lines(found):
            say(line)
    raise typer.Exit(FAILED if any(each.is_wrong for each in found) else DONE)


def _lines(found: list[Finding]) -> Iterator[str]:
    """Everything by topic, then what is wrong with its remedy."""
    for topic, findings in groupby(found, lambda each: each.topic):
        yield topic
        for each in findings:
            mark = "!" if each.is_wrong else " "
            yield from _wrapped(f"{mark} {each.name}", each.value)
    wrong = [each for each in found if each.is_wrong]
    yield f"wrong: {len(wrong)} thing{'s' * (len(wrong) != 1)}" if wrong else "nothing is wrong"
    for each in wrong:
        yield from _wrapped(f"! {each.name}", f"{each.trouble}; {each.remedy}")


def _wrapped(name: str, value: str) -> Iterator[str]:
    blank = " " * _INDENT
    head = f"{name:<{_INDENT - 1}} "
    if len(head) > _INDENT:
        yield name
        head = blank
    lines = textwrap.wrap(value, _WIDTH - _INDENT, break_long_words=False, break_on_hyphens=False) or [""]
    yield f"{head}{lines[0]}"
    yield from (f"{blank}{line}" for line in lines[1:])
