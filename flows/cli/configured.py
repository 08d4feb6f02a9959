"""The commands whose options variables and files can set, and ``config show``, which says where each value is from."""

from __future__ import annotations

import os
from contextvars import ContextVar
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from engines.errors import EngineError
from flows.cli.console import USAGE, say, stop, warn
from flows.cli.json_output import FORMAT, print_event, print_json
from flows.cli.sources import (
    REPROCESS,
    RUN,
    Sourced,
    options_of,
    settings_files,
    sourced,
    strange_variables,
    user_file,
)
from flows.request import REQUIRED, Parameter
from pipeline.errors import ColorizeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

app = typer.Typer(no_args_is_help=True, help="Where the values of options come from.")
_OUTPUT_VARIABLE = "COLORIZE_ARCHIVE_OUTPUT"
# Of the command that this process runs.
_given: ContextVar[tuple[str, Mapping[str, Any], Mapping[str, Sourced]] | None] = ContextVar("given", default=None)


class ConfiguredCommand(TyperCommand):
    """A command that takes what the command line does not say from variables and files."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, with what variables and files say as defaults."""
        if not ctx.resilient_parsing and not {"--help", "-h"}.intersection(args):
            given = self.make_parser(ctx).parse_args(args=list(args))[0]
            try:
                found = _found(str(self.name), given.get("output"))
            except UsageError as error:
                stop(error, USAGE)
            ctx.default_map = {name: each.value for name, each in found.items()}
            from_elsewhere = {name: each for name, each in found.items() if given.get(name) is None}
            _given.set((str(self.name), given, from_elsewhere))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Call the command; events for programs begin and end with it."""
        if not ctx.params.get("json") or ctx.params.get("dry_run"):
            return super().invoke(ctx)
        print_event("begin", command=self.name, format=FORMAT)
        try:
            return super().invoke(ctx)
        except typer.Exit as end:
            print_event("end", exit_code=end.exit_code)
            raise


def _found(command: str, output: str | None) -> dict[str, Sourced]:
    """What variables and files say of a command for this output folder. Raises UsageError."""
    return sourced(command, settings_files(output or os.environ.get(_OUTPUT_VARIABLE)), os.environ)


def explained(error: ColorizeError | EngineError) -> str:
    """An error, with the word that was probably meant, and where the value comes from if not the command line."""
    message, option = str(error), getattr(error, "option", "")
    if (given := _given.get()) is None or not option:
        return message
    command, typed, elsewhere = given
    row = next((row for row in options_of(command) if row.key == option), None)
    if row is None:
        return message
    source = elsewhere.get(row.name)
    value = source.value if source is not None else typed.get(row.name)
    if isinstance(value, str) and value not in row.choices and (near := get_close_matches(value, row.choices, 1)):
        message += f"; did you mean {near[0]}?"
    return f"{message} ({option} is from {source.source})" if source is not None else message


@app.command()
def show(
    output: Annotated[str | None, typer.Option("--output", "-o", help="The output folder that it is about.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print every option of run, its value and where that comes from; then what is set for reprocess alone."""
    try:
        files = settings_files(output or os.environ.get(_OUTPUT_VARIABLE))
        found = {command: sourced(command, files, os.environ) for command in (RUN, REPROCESS)}
    except UsageError as error:
        stop(error, USAGE)
    rows = [_row(RUN, row, found[RUN].get(row.name)) for row in options_of(RUN)]
    if output is not None:
        rows = [
            {**row, "value": output, "source": "command line"} if row["option"] == "output" else row for row in rows
        ]
    rows += [
        _row(REPROCESS, row, each)
        for row in options_of(REPROCESS)
        if (each := found[REPROCESS].get(row.name)) and each != found[RUN].get(row.name)
    ]
    if as_json:
        print_json("config show", {"files": [str(file.path) for file in files], "options": rows})
        return
    keys = [row["option"] if row["command"] == RUN else f"{REPROCESS}.{row['option']}" for row in rows]
    values = ["" if row["value"] is None else _in_toml(row["value"]) for row in rows]
    for key, value, row in zip(keys, values, rows, strict=True):
        say(f"{key:<{max(map(len, keys))}}  {value:<{min(30, max(map(len, values)))}}  {row['source']}".rstrip())
    for name in [str(file.path) for file in files] or [f"none; {user_file()} would be read"]:
        say(f"file: {name}")
    for line in strange_variables(os.environ):
        warn(line)


def _in_toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _row(command: str, row: Parameter, found: Sourced | None) -> dict[str, Any]:
    if found is not None:
        return {"command": command, "option": row.key, "value": found.value, "source": found.source}
    default = None if row.default is REQUIRED else row.default
    value = row.not_given or None if default is None else default
    return {"command": command, "option": row.key, "value": value, "source": "default"}
