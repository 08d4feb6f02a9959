"""Where the values of options come from: command line, variable, the folder's file, the user's file, default."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.cli.sources import FILE, REPROCESS, RUN, options_of, read_settings, sourced, variables_of
from flows.request import SHARED_OPTIONS, RunRequest, parameters_of
from pipeline.errors import UsageError


@pytest.fixture
def users(tmp_path, monkeypatch) -> Path:
    """The user's file, which is not there yet; none of the machine's own settings count."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "colorize-archive"
    folder.mkdir(parents=True)
    return folder / FILE


@pytest.fixture
def output(tmp_path) -> Path:
    folder = tmp_path / "archive" / "colour"
    folder.mkdir(parents=True)
    return folder


def say(*words: object) -> tuple[int, str]:
    """Exit code and all that a command prints, on one line."""
    ran = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    return ran.exit_code, " ".join(ran.output.split())


def shown(*words: object) -> dict[str, tuple[object, str]]:
    """Value and source of each option, as ``config show`` has them."""
    code, told = say("config", "show", "--json", *words)
    assert code == 0, told
    return {
        row["option"]: (row["value"], row["source"]) for row in json.loads(told)["options"] if row["command"] == RUN
    }


def test_the_nearer_source_counts(users, output, monkeypatch):
    scan = output.parent / "scan.png"
    scan.touch()
    words = ("run", scan, "-o", output)
    users.write_text("window = 'of-the-user'")
    code, told = say(*words)
    assert code == 2
    assert "of-the-user" in told
    assert f"window is from {users}" in told
    above = output.parent / FILE
    above.write_text("window = 'of-the-folder'")
    code, told = say(*words)
    assert "of-the-folder" in told
    assert f"window is from {above}" in told
    nearer = output / FILE
    nearer.write_text("window = 'nearer'")
    assert f"window is from {nearer}" in say(*words)[1]
    monkeypatch.setenv("COLORIZE_ARCHIVE_WINDOW", "of-the-variable")
    code, told = say(*words)
    assert "of-the-variable" in told
    assert "window is from COLORIZE_ARCHIVE_WINDOW" in told
    code, told = say(*words, "--window", "typed")
    assert "typed" in told
    assert " is from " not in told


def test_config_show_says_where_each_value_is_from(users, output, monkeypatch):
    users.write_text("limit-memory = '3GiB'\nvivid = 0.5\nforce = true\n")
    (output.parent / FILE).write_text("vivid = 0.25\nformat = 'tiff,iiif'\n")
    monkeypatch.setenv("COLORIZE_ARCHIVE_PRECISION", "fp32")
    monkeypatch.setenv("COLORIZE_ARCHIVE_ANCHOR", "no")
    found = shown("-o", output)
    assert found["output"] == (str(output), "command line")
    assert found["limit-memory"] == ("3GiB", str(users))
    assert found["vivid"] == ("0.25", str(output.parent / FILE))
    assert found["format"] == ("tiff,iiif", str(output.parent / FILE))
    assert found["force"] == (True, str(users))
    assert found["precision"] == ("fp32", "COLORIZE_ARCHIVE_PRECISION")
    assert found["anchor"] == (False, "COLORIZE_ARCHIVE_ANCHOR")
    assert found["window"] == ("hann", "default")
    assert list(found) == [row.key for row in options_of(RUN)]
    code, told = say("config", "show", "-o", output)
    assert code == 0
    assert f"vivid 0.25 {output.parent / FILE}" in told


def test_the_users_file_may_name_the_output_folder(users, output):
    users.write_text(f"output = '{output}'\n")
    (output / FILE).write_text("stride = 64\n")
    assert shown()["stride"] == ("64", str(output / FILE))


@pytest.mark.parametrize("command", [RUN, REPROCESS])
def test_every_option_has_a_variable_and_a_key(command, tmp_path):
    for row in options_of(command):
        (tmp_path / FILE).write_text(
            f"{'' if command == RUN else '[reprocess]'}\n{row.key} = {'true' if row.is_switch else repr('filed')}"
        )
        file = read_settings(tmp_path / FILE)
        (of_file,) = sourced(command, [file], {}).values()
        assert (of_file.value, of_file.source) == (True if row.is_switch else "filed", str(tmp_path / FILE))
        name = variables_of(command, row)[0]
        found = sourced(command, [file], {name: "0" if row.is_switch else "set"})
        assert found[row.name].value == (False if row.is_switch else "set")
        assert found[row.name].source == name


def test_colours_of_run_are_not_asked_of_reprocess(tmp_path):
    """A stride for all runs must not make every stored version again; where a command runs is asked alike."""
    path = tmp_path / FILE
    path.write_text("stride = 64\nworkers = 3\n\n[reprocess]\nvivid = 0.5\n")
    variables = {"COLORIZE_ARCHIVE_MODEL": "free", "COLORIZE_ARCHIVE_PRECISION": "fp32"}
    found = sourced(REPROCESS, [read_settings(path)], variables)
    assert {name: each.value for name, each in found.items()} == {"workers": "3", "vivid": "0.5", "precision": "fp32"}
    assert SHARED_OPTIONS.isdisjoint({"stride", "vivid", "model", "formats"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("strid = 64", ("key strid", "did you mean stride?")),
        ("zebra = 64", ("key zebra", "config show")),
        ("inputs = '/scans'", ("key inputs",)),
        ("force = 'yes'", ("key force", "true or false")),
        ("stride = true", ("key stride", "a text or a number")),
        ("stride = [64]", ("key stride", "a text or a number")),
        ("[reprocess]\nsalvage = true", ("key reprocess.salvage",)),
        ("reprocess = 3", ("key reprocess",)),
        ("stride 64", ("no TOML", "line 1")),
    ],
)
def test_wrong_keys_are_one_line_with_file_and_key(text, words, users, output):
    path = output / FILE
    path.write_text(text)
    code, told = say("run", output, "-o", output)
    assert code == 2
    assert told.startswith(f"colorize-archive: {path}: ")
    assert [word for word in words if word not in told] == []


def test_wrong_values_name_their_file_and_key(users, output):
    scan = output / "scan.png"
    scan.touch()
    for text, key in (
        ("stride = 'wide'", "stride"),
        ("stride = 900", "stride"),
        ("limit-memory = 'much'", "limit-memory"),
        ("format = 'tif'", "format"),
        ("until = 'never'", "until"),
        ("vivid = 3", "vivid"),
    ):
        (output / FILE).write_text(text)
        code, told = say("run", scan, "-o", output)
        assert code == 2, text
        assert f"({key} is from {output / FILE})" in told


def test_an_output_folders_file_cannot_name_another_one(users, output):
    (output / FILE).write_text("output = '/elsewhere'")
    code, told = say("config", "show", "-o", output)
    assert code == 2
    assert "key output" in told


def test_a_strangers_file_in_an_open_folder_does_not_count(users, output, monkeypatch):
    (output.parent / FILE).write_text("scheduler = 'tcp://elsewhere:8786'")
    assert shown("-o", output)["scheduler"][0] == "tcp://elsewhere:8786"
    output.parent.chmod(0o777)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    if (output.parent / FILE).stat().st_uid:
        assert shown("-o", output)["scheduler"][1] == "default"


def test_a_switchs_variable_says_yes_or_no(users, output, monkeypatch):
    monkeypatch.setenv("COLORIZE_ARCHIVE_FORCE", "perhaps")
    code, told = say("config", "show")
    assert code == 2
    assert "COLORIZE_ARCHIVE_FORCE 'perhaps'" in told


def test_a_misspelt_variable_is_named(users, output, monkeypatch):
    monkeypatch.setenv("COLORIZE_ARCHIVE_PRECISON", "fp32")
    monkeypatch.setenv("COLORIZE_ARCHIVE_CACHE", "/elsewhere")  # of something else
    code, told = say("config", "show")
    assert code == 0
    assert "did you mean COLORIZE_ARCHIVE_PRECISION?" in told
    assert "COLORIZE_ARCHIVE_CACHE" not in told


def test_what_was_probably_meant_is_said(users, output):
    scan = output / "scan.png"
    scan.touch()
    for words, meant in (
        (("--window", "han"), "hann"),
        (("--precision", "fp31"), "fp32"),
        (("--cluster", "locla"), "local"),
    ):
        code, told = say("run", scan, "-o", output, *words)
        assert code == 2
        assert f"did you mean {meant}?" in told
    assert "--stride" in say("run", scan, "-o", output, "--strid", "64")[1]
    assert "'reprocess'" in say("reproces")[1]


def test_flows_take_no_settings_of_the_command(users, output, monkeypatch):
    monkeypatch.setenv("COLORIZE_ARCHIVE_TILE", "512")
    users.write_text("tile = 512")
    assert next(row.default for row in parameters_of(RunRequest) if row.name == "tile") == 256
    assert RunRequest(inputs=[], output=str(output)).tile == 256


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        read_settings(tmp_path / FILE)
