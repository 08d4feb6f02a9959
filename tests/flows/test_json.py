"""What commands print for programs has the keys that the docs list, and a run's events say how long it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.cli.json_output import FORMAT
from flows.cli.json_schema import EVENTS, OBJECTS, keys_of, tables
from flows.outcome import ScanOutcome
from tests.engines.test_compile import install
from tests.patience import PATIENCE_SECONDS
from tests.printed import check

DELAYED = '''
"""Backend ``mine``: the identity engine, which takes its time."""
import time

from engines.backends import identity

RANK, REASON, CARD, PRECISIONS = None, "for tests", identity.CARD, ("fp32",)


def version():
    return "1"


class Delayed(identity.IdentityEngine):
    def predict(self, lightness):
        time.sleep(0.05 * len(lightness))
        return super().predict(lightness)


def open_engine(model, spec):
    return Delayed()
'''


def printed(*words: object, code: int = 0) -> dict:
    """What a command prints with --json, held against its schema."""
    ran = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert ran.exit_code == code, ran.output
    told = json.loads(ran.stdout)
    name = told["command"]
    assert told["format"] == FORMAT
    assert " ".join(map(str, words)).startswith(name.split(" --")[0])
    return check(name, told)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory, command) -> Path:
    folder = tmp_path_factory.mktemp("json")
    cv2.imwrite(str(folder / "scan.png"), np.random.default_rng(0).integers(0, 256, (90, 120), np.uint8))
    ran = command("run", folder / "scan.png", "-o", folder / "out", "--engine", "identity")
    assert ran.code == 0, ran.err
    return folder


def test_facts_of_an_output_folder(coloured):
    output = coloured / "out"
    assert printed("status", output)["scans"]["done"] == 1
    assert [each["passes"] for each in printed("verify", output)["certificates"]] == [True]
    assert printed("inspect", output / "scan.color.json")["facts"]["what"]
    assert printed("inspect", output / "scan.zarr")["facts"]["versions"]
    assert printed("decisions", output)["decisions"] == []
    assert not printed("clean", output, "--dry-run")["is_removed"]


def test_facts_of_what_is_made_of_results(coloured, tmp_path):
    output = coloured / "out"
    looks = printed("variants", output / "scan.color.json")["looks"]
    assert [each["number"] for each in looks] == list(range(1, len(looks) + 1))
    assert looks[0]["command"] == ""
    told = printed("hint", output / "scan.color.json", "--at", "3,4", "--colour", "#556b2f")
    assert told["shape_yx"] == [90, 120]
    assert [each["colour"] for each in told["hints"]] == ["#556b2f"]
    Path(told["file"]).unlink()
    site = printed("publish", output, "--to", tmp_path / "site", "--base-url", "https://a.example")
    assert (site["counts"]["kept"], site["scans"][0]["state"]) == (1, "kept")
    site = printed("publish", output, "--to", tmp_path / "site", "--unreviewed")
    assert [(each["scan"], each["state"]) for each in site["scans"]] == [("scan", "new")]
    assert printed("package", output, "--as", "bagit", "--to", tmp_path / "bag", "--unreviewed")["counts"]["new"] == 1
    assert printed("catalogue", output, "--to", tmp_path / "all.csv")["results"] == 1
    (tmp_path / "empty.csv").write_text("scan,version,decision,reason,person,when,note\n")
    assert printed("decisions", output, "--import", tmp_path / "empty.csv")["taken"] == 0


def test_answers_to_a_quiz(tmp_path):
    answers = [{"model": "a", "said": "real", "right": False}, {"model": None, "said": "real", "right": True}]
    (tmp_path / "quiz-1.json").write_text(json.dumps({"quiz": "one", "answers": answers}))
    told = printed("quiz", tmp_path)
    assert (told["people"], told["answers"], told["right"]) == (1, 2, 1)
    assert {each["taken_for_real"] for each in told["kinds"]} == {1}


def test_facts_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert "default" in [each["name"] for each in printed("models")["models"]]
    assert "default" not in printed("config", "show")["files"]


def test_recipes_are_listed():
    pytest.importorskip("torch")
    assert {"palette-own"} <= {each["name"] for each in printed("recipes")["recipes"]}


def test_a_plan_is_printed(coloured):
    told = printed("run", coloured / "scan.png", "-o", coloured / "new", "--engine", "identity", "--dry-run")
    assert [each["scan"] for each in told["scans"]] == ["scan"]
    assert told["total"]["tiles"] == told["scans"][0]["tiles"] > 0
    assert not (coloured / "new").exists()


def test_the_docs_list_every_key():
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    assert tables() in page
    assert len(keys_of(OBJECTS["status"])) > 5


@pytest.mark.e2e
def test_events_of_a_run_and_the_time_that_it_has_left(shared_server, tmp_path):
    """With an engine whose speed is known, the time left is right within a quarter after the first tenth."""
    site = install(tmp_path / "site", DELAYED)
    cv2.imwrite(str(tmp_path / "scan.png"), np.random.default_rng(0).integers(0, 256, (3000, 2000), np.uint8))
    (tmp_path / "letter.png").write_text("Dear archive")
    words = ("run", tmp_path / "scan.png", tmp_path / "letter.png", "-o", tmp_path / "out", "--engine", "mine")
    words += ("--no-anchor", "--stride", "128", "--json", "--quiet")
    path = [str(site), str(Path(__file__).parents[2])]
    ran = subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env={**shared_server.environment, "PYTHONPATH": ":".join(path)},
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    assert ["failed" in line for line in ran.stderr.splitlines()] == [True]  # quiet
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    outcome = set(ScanOutcome("", "", "done", "").to_json())
    for event in events:
        if event["event"] == "finished":
            assert set(event) == outcome | {"event", "time"}
        else:
            check(event["event"], event, EVENTS)
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1], events[-1]["exit_code"]) == ("begin", "end", 1)
    assert {"message", "planned", "stage", "progress", "finished"} <= set(kinds)
    assert [event["stage"] for event in events if event["event"] == "stage"] == ["reading", "colouring", "writing"]

    def seconds(event: dict) -> float:
        return datetime.fromisoformat(event["time"]).timestamp()

    finished = max(seconds(event) for event in events if event["event"] == "finished")
    progress = [event for event in events if event["event"] == "progress"]
    first = seconds(progress[0])
    later = [event for event in progress if seconds(event) > first + (finished - first) / 10]
    assert len(later) > 3
    told = [(event["seconds_left"], finished - seconds(event)) for event in later]
    # Most are: what else a machine does slows some seconds down. Each one is right on a clock of our own, in the tests
    # of the time left.
    right = [left is not None and left == pytest.approx(truth, rel=0.25, abs=3) for left, truth in told]
    assert sum(right) > len(right) / 2, told
