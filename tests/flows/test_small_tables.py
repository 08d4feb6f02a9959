"""What commands print fits the terminal, cuts no name, and says things as people do."""

import io
import json
import re
import time
from datetime import datetime
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from flows.cli import report
from flows.cli.status import lines_of
from flows.cli.tables import first_sentence, local_time, narrowed
from flows.run.forecast import Forecast, recorded_speed
from pipeline.results.run_spec import RunSpec
from pipeline.support.files import write_json
from training.config import load_recipe, shipped_recipes

SPEC = RunSpec((256, 256), (224, 224), "hann", "openvino", "2026", "fp32", 8, "default", "ab" * 32, 128.0)
CELL = st.text("abcdefgh 0123.[]ä", min_size=1, max_size=12).map(str.strip).filter(bool)


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), min_size=2, max_size=6)))
def test_a_wide_table_is_turned_round_and_loses_nothing(cells):
    rows = ["| " + " | ".join(row) + " |" for row in cells]
    text = "\n".join(["before", rows[0], "|" + "---|" * len(cells[0]), *rows[1:], "after"])
    assert narrowed(text, 10_000) == text
    turned = narrowed(text, 60)
    assert max(map(len, turned.split("\n"))) <= 60
    for row in cells:
        for cell in row:
            assert cell in turned
    assert turned.split("\n")[0] == "before"
    assert turned.split("\n")[-1] == "after"


def test_each_recipe_is_described_by_a_whole_sentence():
    for name in shipped_recipes():
        description = load_recipe(name).description
        said = first_sentence(description)
        assert description.startswith(said)
        assert not re.search(r"\d$|et al$", said) or said == description.removesuffix("."), said
    assert first_sentence("Learns at 0.5 of it. More.") == "Learns at 0.5 of it"
    assert first_sentence("No stop") == "No stop"


def test_the_plan_cuts_no_name_at_80_columns():
    name = "albums/1910/a-scan-with-a-long-name-as-archives-give-them-to-their-plates-0001"
    plan = SimpleNamespace(megapixels=10.0, tiles=400, blocks=6, memory_bytes=2**30, disk_bytes=2**28)
    job = SimpleNamespace(plan=plan, scan=SimpleNamespace(stem=name))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report._plan_table([job], Forecast((12.0,), 3.0, "")))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert name in "".join(line.split("│")[1].strip() for line in lines if line.startswith("│"))
    assert "…" not in "".join(lines)
    assert re.search(r"all.* 15 ", "".join(lines))


@pytest.mark.parametrize(
    ("value", "words"),
    [((1, 2), "1, 2"), ({"a": [1, 2]}, "a 1, 2"), ("as it is", "as it is"), ([["x"], ["y"]], "x, y")],
)
def test_lists_are_words_with_commas(value, words):
    assert report._in_words(value) == words


def test_status_names_files_with_folder_and_ending_and_local_times():
    started = "2026-02-01T10:20:30+00:00"
    scan = {"scan": "albums/plate", "path": "/scans/albums/plate.tif", "page": 1, "reason": "damaged", "failures": 2}
    run = {"started": started, "finished": "", "kind": "colorize", "state": "killed", "megapixels": 1.0, "seconds": 0}
    counts = dict.fromkeys(("done", "failed", "quarantined", "stopped"), 0)
    found = {
        "output": "/colour",
        "scans": {"all": 1, **counts},
        "megapixels": 0.0,
        "failed": [{**scan, "retry_after": started}],
        "quarantined": [],
        "stopped": [],
        "runs": [{**run, **dict.fromkeys(("done", "skipped", "failed", "stopped"), 0)}],
        "versions": [],
    }
    said = "\n".join(lines_of(found))
    local = f"{datetime.fromisoformat(started).astimezone():%Y-%m-%d %H:%M}"
    assert "albums/plate.tif: damaged" in said
    assert said.count(local) == 2
    assert started not in said
    assert "/colour" in said


def a_run(output, began, ended, predictions, spec=SPEC):
    """The record of a run that made one result, and its sidecar."""
    (output / "runs").mkdir(exist_ok=True)
    scans = [{"scan": "a", "status": "done"}, {"scan": "b", "status": "skipped"}]
    write_json(
        output / "runs" / f"{began.replace(':', '')}.json", {"started": began, "finished": ended, "scans": scans}
    )
    work = {"megapixels": 1.0, "tiles": 20, "predictions": predictions, "blocks": 1, "blocks_there": 0, "block_px": 512}
    told = {"finished": ended, "settings": spec.to_json(), "work": {**work, "seconds": {"colorize": 1.0}}}
    write_json(output / "a.color.json", told)


def test_the_speed_of_the_last_run_with_the_same_engine_counts(tmp_path):
    assert recorded_speed(tmp_path, SPEC) is None
    a_run(tmp_path, "2026-01-01T10:00:00+00:00", "2026-01-01T10:01:40+00:00", 500)
    found = recorded_speed(tmp_path, SPEC)
    assert found is not None
    assert found[0] == pytest.approx(5.0)
    other = RunSpec((256, 256), (224, 224), "hann", "onnxruntime", "1", "fp32", 8, "default", "ab" * 32, 128.0)
    assert recorded_speed(tmp_path, other) is None


def test_times_are_those_of_the_machine_with_their_zone(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert local_time("2026-07-01T22:30:59+00:00") == "2026-07-02 00:30 CEST"
        assert local_time("2026-01-01T22:30:59+00:00") == "2026-01-01 23:30 CET"
        assert local_time("yesterday") == "yesterday"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_nothing_due_is_one_line_and_no_table(command, tmp_path):
    (tmp_path / "in" / "albums").mkdir(parents=True)
    scan = tmp_path / "in" / "albums" / "plate.png"
    cv2.imwrite(str(scan), np.random.default_rng(0).integers(0, 256, (96, 128), np.uint8))
    (tmp_path / "in" / "albums" / "cut.png").write_bytes(scan.read_bytes()[:300])
    words = ("run", tmp_path / "in", "-o", tmp_path / "out", "--engine", "identity", "--tile", "64")
    assert command(*words).code == 1
    planned = command(*words, "--dry-run")
    assert "nothing to do for 1 scan" in planned.out
    assert "│" not in planned.out
    shown = command("inspect", tmp_path / "out" / "albums" / "plate.color.json").out
    assert re.search(r"tile, stride +64 px, 32 px, window", shown)
    assert "[" not in shown
    assert re.search(r"finished +\d{4}-\d\d-\d\d \d\d:\d\d \S+\n", shown)
    said = command("status", tmp_path / "out").out
    assert "albums/cut.png" in said
    freed = command("release", tmp_path / "out", "albums/cut.png")
    assert freed.code == 0, freed.err
    assert json.loads(command("status", tmp_path / "out", "--json").out)["failed"][0]["failures"] == 0
