"""The options of ``run`` and ``reprocess`` on the command line, made from the table in :mod:`flows.request`.

``python -m flows.cli.request`` prints the table of options in ``docs/usage.md``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import typer

from flows.request import (
    GRADE_OPTIONS,
    REGION_OPTIONS,
    REQUIRED,
    CommandOptions,
    F,
    Parameter,
    ReprocessRequest,
    Request,
    RunRequest,
    parameters_of,
    with_signature,
)

R = TypeVar("R", RunRequest, ReprocessRequest)


def taking(request: type[Request]) -> Callable[[F], F]:
    """A decorator that gives a command of ``**given`` the options of a request, and those of the command alone."""
    return with_signature(map(_on_the_command_line, (*parameters_of(request), *parameters_of(CommandOptions))))


def asked(request: type[R], given: Mapping[str, Any]) -> tuple[R, CommandOptions]:
    """What a command was given, parted into the request and what only the command is asked."""
    own = {row.name for row in parameters_of(CommandOptions)}
    of_request = {name: value for name, value in given.items() if name not in own}
    return request(**of_request), CommandOptions(**{name: given[name] for name in own})


def _on_the_command_line(parameter: Parameter) -> inspect.Parameter:
    """A parameter as Typer takes it. Numbers are text, so that the flow itself reports wrong ones."""
    kind: Any = bool if parameter.is_switch else list[str] if parameter.is_list else str
    if parameter.is_optional:
        kind = kind | None
    given: dict[str, Any] = {"help": parameter.help, "rich_help_panel": parameter.option.panel}
    if parameter.not_given:
        given["show_default"] = parameter.not_given
    if parameter.option.metavar:
        shown = typer.Argument(metavar=parameter.option.metavar, **given)
    else:
        shown = typer.Option(*parameter.flags, autocompletion=_completed(parameter), **given)
    is_text = parameter.default not in (REQUIRED, None) and not parameter.is_switch
    return inspect.Parameter(
        parameter.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=str(parameter.default) if is_text else parameter.default,
        annotation=Annotated[kind, shown],
    )


def _completed(parameter: Parameter) -> Callable[[str], list[str]]:
    def completed(incomplete: str) -> list[str]:
        """The choices that complete a word, or the last word of a list with commas."""
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{word}" for word in parameter.choices if word.startswith(last)]

    return completed


def options_table() -> str:
    """The options of ``run`` as a table in Markdown."""
    every = (*parameters_of(RunRequest), *parameters_of(CommandOptions))
    rows = [parameter for parameter in every if not parameter.option.metavar]
    lines = ["| option | default | meaning |", "|---|---|---|"]
    lines += [_line(row.flags, _default_of(row), _meaning(row)) for row in rows]
    return "\n".join(lines)


def grade_table() -> str:
    """The options of ``reprocess`` that a grade is made of, as a table in Markdown."""
    rows = [row for row in parameters_of(ReprocessRequest) if row.name in (*GRADE_OPTIONS, *REGION_OPTIONS)]
    lines = [f"| {', '.join(f'`{flag}`' for flag in row.flags)} | {_meaning(row).removesuffix('.')} |" for row in rows]
    return "\n".join(["| option | meaning |", "|---|---|", *lines])


def _meaning(row: Parameter) -> str:
    return f"{row.option.help} {row.option.more}".strip()


def _line(flags: tuple[str, ...], default: str, meaning: str) -> str:
    names = ", ".join(f"`{name}`" for flag in flags for name in flag.split("/"))
    return f"| {names} | {f'{default} ' if default else ''}| {meaning.strip().removesuffix('.')} |"


def _default_of(parameter: Parameter) -> str:
    if parameter.is_switch:
        return parameter.name if parameter.default else ""
    return parameter.not_given if parameter.default in (REQUIRED, None) else f"`{parameter.default}`"


if __name__ == "__main__":
    print(options_table(), grade_table(), sep="\n\n")
