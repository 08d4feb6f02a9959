"""Help in groups with examples that the parser reads, words that were probably meant, and completion in shells."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from flows.cli.app import app
from flows.cli.examples import EXAMPLES
from pipeline.formats import ENDINGS
from pipeline.tiling.weights import WINDOWS


def commands(group=None, before=()):
    for name, command in (group or get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


COMMANDS = dict(commands())


def shown(*words: str) -> str:
    ran = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "160", "TERM": "dumb"})
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_examples_are_of_commands_that_are_there():
    assert {"run", "reprocess", "inspect", "verify", "status", "train"} <= set(EXAMPLES) <= set(COMMANDS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_shows_the_examples_and_the_parser_reads_them(name):
    told = shown(*name.split())
    for example in EXAMPLES[name]:
        assert f"colorize-archive {example}" in told
        words = shlex.split(example)
        called = next(each for each in (" ".join(words[:2]), words[0]) if each in COMMANDS)
        command = COMMANDS[called]
        context = command.context_class(command, info_name=called)
        command.make_parser(context).parse_args(words[len(called.split()) :])


@pytest.mark.parametrize("name", ["run", "reprocess"])
def test_options_are_in_groups_with_their_defaults(name):
    told = shown(name)
    for panel in ("What", "How it looks", "Where it runs", "What the command says"):
        assert f"─ {panel} ─" in told
    assert ("─ When it stops ─" in told) == (name == "run")
    assert "default: auto" in told


def completed(*words: str) -> list[str]:
    """What bash offers after these words."""
    variables = {"_COLORIZE_ARCHIVE_COMPLETE": "complete_bash", "COMP_WORDS": shlex.join(["colorize-archive", *words])}
    variables["COMP_CWORD"] = str(len(words))
    ran = CliRunner().invoke(app, [], prog_name="colorize-archive", env=variables)
    return ran.output.split()


def test_completion_lists_choices_options_and_commands():
    assert completed("run", "--window", "") == list(WINDOWS)
    assert completed("run", "--precision", "f") == ["fp32", "fp16"]
    assert completed("reprocess", "--format", "ti") == ["tiff"]
    assert completed("run", "--format", "tiff,i") == ["tiff,iiif"]
    assert completed("run", "--format", "") == list(ENDINGS)
    assert "identity" in completed("run", "--engine", "")
    assert "--stride" in completed("run", "--str")
    assert set(completed("repr")) == {"reproduce", "reprocess"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_a_shell(shell):
    ran = CliRunner().invoke(
        app, [], prog_name="colorize-archive", env={"_COLORIZE_ARCHIVE_COMPLETE": f"source_{shell}"}
    )
    assert ran.exit_code == 0
    assert f"complete_{shell}" in ran.output


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("run", "--strid", "64"), "--stride"),
        (("rnu",), "'run'"),
        (("engines", "lsit"), "'list'"),
        (("verify",), "RESULT"),
        (("run", "/scans"), "--output"),
        (("run", "/scans", "--output"), "--output"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, meant):
    ran = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert ran.returncode == 2
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("colorize-archive: ")
    assert meant in line
    assert "--help lists what there is" in line
