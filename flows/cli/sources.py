"""Where options get their values: command line, variable, the output folder's file, the user's file, default.

A variable is ``COLORIZE_ARCHIVE_`` and the option's name. A file is ``colorize-archive.toml``: one is looked for in the
output folder and in the folders above it, one in the user's folder of settings. Both name the options of ``run``;
``reprocess`` shares those that say where and how a command works. What decides about colours is asked again of
``reprocess``, in the table ``[reprocess]`` and as ``COLORIZE_ARCHIVE_REPROCESS_...``: there, what is not given stays as
it was. Only the command reads them: a deployment's parameters are what its form says.

References
----------
TOML 1.0; XDG Base Directory Specification 0.8 for the user's folder.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from flows.request import (
    OBJECTS,
    SHARED_OPTIONS,
    CommandOptions,
    Parameter,
    ReprocessRequest,
    Request,
    RunRequest,
    parameters_of,
)
from pipeline.errors import UsageError

FILE = "colorize-archive.toml"
PREFIX = "COLORIZE_ARCHIVE_"
RUN, REPROCESS = "run", "reprocess"
_REQUESTS: dict[str, type[Request]] = {RUN: RunRequest, REPROCESS: ReprocessRequest}
# As click reads them.
_YES, _NO = {"1", "true", "t", "yes", "y", "on"}, {"0", "false", "f", "no", "n", "off"}
Value = str | bool


@dataclass(frozen=True)
class Sourced:
    """A value that was not given on the command line, and the variable or the file that it stands in."""

    value: Value
    source: str


@dataclass(frozen=True)
class SettingsFile:
    """What a file says: values by the names of options, for each command."""

    path: Path
    of: Mapping[str, Mapping[str, Value]]


def options_of(command: str) -> tuple[Parameter, ...]:
    """The options of a command that variables and files can name, those of the command alone at the end."""
    rows = (*parameters_of(_REQUESTS[command]), *parameters_of(CommandOptions))
    return tuple(row for row in rows if not row.option.metavar)


def variables_of(command: str, row: Parameter) -> tuple[str, ...]:
    """The variables that set an option of a command; the first that is set counts."""
    plain = PREFIX + row.key.upper().replace("-", "_")
    if command == RUN:
        return (plain,)
    own = f"{PREFIX}{REPROCESS.upper()}_{plain.removeprefix(PREFIX)}"
    return (own, plain) if row.name in SHARED_OPTIONS else (own,)


def read_settings(path: Path) -> SettingsFile:
    """Read and check a file's keys and the kinds of its values; whether a value is good is known when all is there.

    Raises
    ------
    UsageError : it cannot be read, is no TOML, or has a key that no option has, or a value of another kind.
    """
    try:
        told = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}), so its settings would be lost; mend it"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path}: no TOML ({error}), so its settings would be lost; mend that line") from error
    own = told.pop(REPROCESS, {})
    if not isinstance(own, dict):
        raise UsageError(f"{path}: key {REPROCESS}: {own!r} is no table; write [{REPROCESS}] and its options below")
    plain = dict(_checked(path, RUN, told))
    shared = {name: value for name, value in plain.items() if name in SHARED_OPTIONS}
    return SettingsFile(path, {RUN: plain, REPROCESS: {**shared, **dict(_checked(path, REPROCESS, own))}})


def _checked(path: Path, command: str, told: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    rows = {row.key: row for row in options_of(command)}
    for key, value in told.items():
        where = f"{path}: key {key if command == RUN else f'{command}.{key}'}"
        row = rows.get(key.replace("_", "-"))
        if row is None:
            near = get_close_matches(key, rows, 1)
            hint = f"did you mean {near[0]}?" if near else "colorize-archive config show lists all"
            raise UsageError(f"{where}: no option has this name, so it would do nothing; {hint}")
        if row.is_switch != isinstance(value, bool) or not isinstance(value, str | int | float):
            kind = "true or false" if row.is_switch else "a text or a number"
            raise UsageError(f"{where}: {value!r} is of the wrong kind; give {kind}")
        yield row.name, value if isinstance(value, bool) else str(value)


def settings_files(output: str | None) -> list[SettingsFile]:
    """The files that count for an output folder, the nearest one first. Raises UsageError."""
    users = user_file()
    files = [read_settings(users)] if users.is_file() else []
    output = output or next((str(value) for file in files if (value := file.of[RUN].get("output"))), None)
    if output is None or (folders := _file_above(output)) is None:
        return files
    found = read_settings(folders)
    if "output" in found.of[RUN]:
        raise UsageError(
            f"{folders}: key output: this file was found by the output folder, so it cannot name another; leave it out"
        )
    return [found, *files]


def user_file() -> Path:
    """Path of the user's own file, which need not exist."""
    return user_config_path("colorize-archive") / FILE


def _file_above(output: str) -> Path | None:
    if output.startswith(OBJECTS):
        return None
    folder = Path(output).expanduser().absolute()
    paths = (each / FILE for each in (folder, *folder.parents))
    return next((path for path in paths if path.is_file() and _is_trusted(path)), None)


def _is_trusted(path: Path) -> bool:
    """False for a stranger's file where everybody may put one, such as /tmp: it could name a scheduler of theirs."""
    is_open = path.parent.stat().st_mode & stat.S_IWOTH
    return not is_open or path.stat().st_uid in (0, os.getuid())


def sourced(command: str, files: list[SettingsFile], environment: Mapping[str, str]) -> dict[str, Sourced]:
    """The values of a command's options that a variable or a file sets, by the names of options.

    Raises
    ------
    UsageError : the variable of a switch is neither yes nor no.
    """
    found: dict[str, Sourced] = {}
    for row in options_of(command):
        name = next((name for name in variables_of(command, row) if environment.get(name)), None)
        if name is not None:
            found[row.name] = Sourced(_of_variable(row, name, environment[name]), name)
            continue
        file = next((file for file in files if row.name in file.of[command]), None)
        if file is not None:
            found[row.name] = Sourced(file.of[command][row.name], str(file.path))
    return found


def _of_variable(row: Parameter, name: str, text: str) -> Value:
    if not row.is_switch:
        return text
    word = text.strip().lower()
    if word not in _YES | _NO:
        raise UsageError(f"{name} {text!r}: says neither yes nor no; give 1 or 0")
    return word in _YES


def strange_variables(environment: Mapping[str, str]) -> list[str]:
    """A line for each variable that looks like an option's and is none's."""
    known = {name for command in _REQUESTS for row in options_of(command) for name in variables_of(command, row)}
    lines = []
    for name in sorted(set(environment) - known):
        if name.startswith(PREFIX) and (near := get_close_matches(name, known, 1, cutoff=0.92)):
            lines.append(f"{name}: the variable of no option, so it does nothing; did you mean {near[0]}?")
    return lines
