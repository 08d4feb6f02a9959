"""The certificate for GPUs, rehearsed with the processors' engines."""

import json
import subprocess
import sys

import pytest

from tests.benchmarks.gpu.__main__ import table
from tests.benchmarks.gpu.parts import PARTS, Sizes, speed

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu")
    words = [sys.executable, "-m", "tests.benchmarks.gpu", "--rehearse", "--minutes", "10", "--out", str(out)]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == (out / "gpu.md").read_text().strip()
    return json.loads((out / "gpu.json").read_text())


def test_every_part_has_figures_of_an_engine_that_is_here(rehearsal):
    assert list(rehearsal) == list(PARTS)
    figures = {"parity": "p99.9 CIEDE2000", "speed": "tiles/s", "blocks": "MP/s", "training": "steps/s"}
    for part, figure in figures.items():
        rows = [row for row in rehearsal[part] if figure in row]
        assert rows, rehearsal[part]
        assert all(row[figure] >= 0 for row in rows)
    assert not [row for rows in rehearsal.values() for row in rows if "left out" in row]


def test_parity_and_speed_have_both_networks_of_each_engine(rehearsal):
    for part in ("parity", "speed"):
        networks = {(row["engine"], row["network"]) for row in rehearsal[part] if "network" in row}
        assert {("openvino", "generator"), ("openvino", "palette"), ("onnxruntime", "generator")} <= networks
    assert all(row["passes"] for row in rehearsal["parity"] if row["precision"] == "fp32")


def test_a_job_has_its_time_and_memory(rehearsal):
    (job,) = rehearsal["jobs"]
    assert 0 < job["stages s"] < job["command s"]
    assert 0.1 < job["peak memory, GB"] < 10


def test_what_the_machine_lacks_is_said(rehearsal):
    told = {row["what"]: row["is"] for row in rehearsal["machine"]}
    assert told["engine openvino"][0].isdigit()
    missing = [each for each in told.values() if each.startswith(("no", "not installed"))]
    assert all(len(each.splitlines()) == 1 for each in missing)


def test_without_an_engine_of_a_gpu_no_figure_is_made_up(monkeypatch):
    monkeypatch.setattr("tests.benchmarks.gpu.parts._can_run", lambda backend: False)
    assert list(speed(Sizes(batches=(1,), seconds=0.1))) == []


def test_rows_of_different_columns_make_one_table():
    assert table([{"a": 1.23456, "b": True}, {"a": None, "c": "x|y"}]) == (
        "| a | b | c |\n|---|---|---|\n| 1.235 | yes |  |\n|  |  | x/y |\n"
    )
