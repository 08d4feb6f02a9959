"""Each option is written once: the command line, the flows, their forms and the docs show what its table says."""

from __future__ import annotations

from inspect import signature

import pytest
from prefect.utilities.callables import parameter_schema
from typer.main import get_command

from engines.spec import PRECISIONS
from flows.cli.app import app
from flows.options import parse_options
from flows.orchestration.colorize import colorize_archive
from flows.orchestration.reprocess import reprocess_archive
from flows.request import CUDA, LOCAL, REQUIRED, CommandOptions, ReprocessRequest, RunRequest, parameters_of
from flows.run.reprocess_plan import parse_reprocess
from pipeline.colour.hues import HUES
from pipeline.formats import ENDINGS
from pipeline.tiling.weights import WINDOWS

COMMANDS = {"run": (RunRequest, colorize_archive), "reprocess": (ReprocessRequest, reprocess_archive)}


@pytest.fixture(params=COMMANDS)
def shown(request):
    """The rows of a command's table, its options on the command line, its flow."""
    table, flow = COMMANDS[request.param]
    return parameters_of(table), get_command(app).commands[request.param].params, flow


def test_command_line_and_flow_have_the_options_of_the_table(shown):
    rows, options, flow = shown
    names = [row.name for row in rows]
    assert len(set(names)) == len(names) > 20
    assert [option.name for option in options] == [*names, *(row.name for row in parameters_of(CommandOptions))]
    assert sorted(signature(flow.fn).parameters) == sorted(names)
    assert sorted(parameter_schema(flow).properties) == sorted(names)


def test_their_defaults_are_those_of_the_table(shown):
    rows, options, flow = shown
    parameters = signature(flow.fn).parameters
    for row, option in zip(rows, options, strict=False):
        assert option.required is (row.default is REQUIRED), row.name
        assert parameters[row.name].default is row.default
        if isinstance(row.default, bool | None):
            assert option.default is row.default, row.name
        elif not option.required:
            assert option.default == str(row.default), row.name


def test_their_help_is_that_of_the_table(shown):
    rows, options, flow = shown
    forms = parameter_schema(flow).properties
    for row, option in zip(rows, options, strict=False):
        assert option.help == row.help
        assert forms[row.name]["title"] == f"{row.option.panel} \N{MIDDLE DOT} {row.option.title}"
        assert forms[row.name]["description"].startswith(row.help)


def test_what_is_taken_where_nothing_is_given_is_told(shown):
    rows, options, flow = shown
    forms = parameter_schema(flow).properties
    for row, option in zip(rows, options, strict=False):
        if row.not_given:
            assert row.default is None
            assert option.show_default == row.not_given
            assert forms[row.name]["description"].endswith(f"Empty: {row.not_given}.")


def test_the_help_of_a_grade_names_every_hue():
    (row,) = (row for row in parameters_of(ReprocessRequest) if row.name == "hue_map")
    assert [hue for hue in HUES if f"`{hue}`" not in row.option.help] == []


@pytest.mark.parametrize(
    ("name", "choices"),
    [("formats", ENDINGS), ("precision", PRECISIONS), ("window", WINDOWS), ("cluster", (LOCAL, CUDA))],
)
def test_help_names_every_choice(name, choices):
    (row,) = (row for row in parameters_of(RunRequest) if row.name == name)
    assert [choice for choice in choices if f"`{choice}`" not in row.option.help] == []


def test_defaults_as_text_are_as_good_as_numbers(tmp_path):
    given = {row.name: str(row.default) for row in parameters_of(RunRequest) if type(row.default) in (int, float)}
    assert set(given) == {"tile", "vivid", "answer", "quarantine_after", "keep"}
    as_numbers = parse_options(RunRequest(inputs=[], output=str(tmp_path)))
    assert parse_options(RunRequest(inputs=[], output=str(tmp_path), **given)) == as_numbers


def test_what_reprocess_is_not_asked_for_is_as_run_has_it(tmp_path):
    request = ReprocessRequest(output=str(tmp_path))
    assert parse_reprocess(request) == parse_options(RunRequest(inputs=[], output=str(tmp_path)))


def test_no_two_options_of_a_command_have_a_flag_in_common(shown):
    _, options, _ = shown
    flags = [flag for option in options for flag in (*option.opts, *option.secondary_opts)]
    assert len(set(flags)) == len(flags)
