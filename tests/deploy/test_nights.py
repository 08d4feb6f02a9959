"""Nights of an archive, as an operator has them: real scans, the literal command, and what is there in the morning.

One story in order, because each night stands on the one before: eleven files of which one is cut off and one is text;
two more; three again at another stride; and one whose worker is killed.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import tifffile

from pipeline.results.verify import verify
from tests.patience import wait_until

SCANS = Path(__file__).parents[1] / "scans"
MARK = "COLORIZE_ARCHIVE_SET_UP"


def crops(count: int, side_px: int = 400):
    """Pieces of the real scans, in turn."""
    files = ("sunset-beach.jpg", "peasant-girls-1909.png", "aerial-caliterra.jpg")
    sources = [cv2.imread(str(SCANS / name), cv2.IMREAD_GRAYSCALE) for name in files]
    for number in range(count):
        source = sources[number % len(sources)]
        step = np.random.default_rng(number)
        y, x = (int(step.integers(extent - side_px)) for extent in source.shape)
        yield source[y : y + side_px, x : x + side_px]


def add_scans(folder: Path, first: int, count: int) -> None:
    endings = (".tif", ".png", ".jpg")
    for number, samples in enumerate(crops(first + count)):
        if number >= first:
            cv2.imwrite(str(folder / f"plate-{number:02}{endings[number % 3]}"), samples)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Eleven files: ten scans, one of them cut off after half, and one that is no picture."""
    folder = tmp_path_factory.mktemp("archive")
    add_scans(folder, 0, 10)
    cut = folder / "plate-09.tif"
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    (folder / "letter.tif").write_text("Dear archivist,\n")
    return folder


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("colour") / "out"


def night(set_up, archive, output, name, *words):
    """Start a run by its literal command and wait for its end; returns Prefect's record of it."""
    typed = ("deployment", "run", "colorize-archive", "-p", f'inputs=["{archive}"]', "-p", f"output={output}")
    started = set_up.prefect(*typed, "-p", "keep=3", "--flow-run-name", name, *words)
    assert started.code == 0, started.err
    return ended(set_up, name)


def ended(set_up, name):
    wanted = {"name": {"any_": [name]}, "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}}

    def found():
        return set_up.api("flow_runs/filter", flow_runs=wanted)

    wait_until(found, lambda: f"{name} did not end", every_seconds=0.2)
    return found()[0]


def status(set_up, output):
    told = set_up.run(sys.executable, "-m", "flows.cli", "status", output, "--json")
    assert told.code == 0, told.err
    return json.loads(told.out)


def record(output):
    """The last run's own."""
    return json.loads(max((output / "runs").glob("*.json")).read_text())


def outcomes(output):
    counts: dict[str, int] = {}
    for scan in record(output)["scans"]:
        counts[scan["status"]] = counts.get(scan["status"], 0) + 1
    return counts


def messages(output, status):
    """What the last run's record says of the scans that came to this, by name."""
    return {scan["scan"]: scan["message"] for scan in record(output)["scans"] if scan["status"] == status}


def artifacts(set_up, run):
    """The types of the run's artifacts, by what their keys end in."""
    found = set_up.api("artifacts/filter", artifacts={"flow_run_id": {"any_": [run["id"]]}})
    ends = ("report", "scan-table", "pictures")
    return {end: each["type"] for each in found for end in ends if each["key"].endswith(end)}


def pictures(output):
    return sorted(p for p in output.glob("*.color.tif") if p.name.count(".") == 2)


def test_the_first_night_colours_what_can_be_coloured(set_up, archive, output):
    run = night(set_up, archive, output, "first night")
    assert (run["state_type"], run["state_name"]) == ("FAILED", "Some scans failed")
    assert outcomes(output) == {"done": 9, "failed": 2}
    failed = messages(output, "failed")
    assert set(failed) == {"letter", "plate-09"}
    assert "not an image" in failed["letter"]
    assert all(certificate.passes for path in pictures(output) for certificate in verify(path))
    for path in pictures(output):
        picture = tifffile.imread(path).astype(int)
        assert np.ptp(picture, axis=2).mean() > 1, f"{path.name} is gray"
    assert artifacts(set_up, run) == {"report": "markdown", "scan-table": "table", "pictures": "markdown"}
    told = status(set_up, output)
    assert (told["scans"]["done"], told["scans"]["failed"]) == (9, 2)
    assert "letter" in json.dumps(told["failed"])
    page = (output / "index.html").read_text()
    assert "plate-03" in page
    assert "letter" in page
    with sqlite3.connect(output / "catalogue.sqlite") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)


def test_the_second_night_does_what_is_new_and_tries_what_failed(set_up, archive, output):
    before = {path: path.stat().st_mtime_ns for path in pictures(output)}
    add_scans(archive, 11, 2)
    run = night(set_up, archive, output, "second night")
    assert (run["state_type"], run["state_name"]) == ("FAILED", "Some scans failed")
    assert outcomes(output) == {"done": 2, "skipped": 9, "failed": 2}
    assert set(messages(output, "failed")) == {"letter", "plate-09"}
    assert set(messages(output, "done")) == {"plate-11", "plate-12"}
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_three_are_made_again_at_another_stride(set_up, output):
    names = [path.name.removesuffix(".color.tif") for path in pictures(output)[:3]]
    before = {name: (output / f"{name}.color.tif").read_bytes() for name in names}
    typed = ("deployment", "run", "reprocess-archive", "-p", f"output={output}", "-p", f"scans={json.dumps(names)}")
    started = set_up.prefect(*typed, "-p", "stride=64", "-p", "keep=3", "--flow-run-name", "again")
    assert started.code == 0, started.err
    assert ended(set_up, "again")["state_type"] == "COMPLETED"
    assert outcomes(output) == {"done": 3}
    for name in names:
        told = json.loads((output / f"{name}.color.json").read_text())
        assert told["settings"]["stride_yx"] == [64, 64]
        kept = list(output.glob(f"{name}.256-224-*.color.tif"))
        assert [path.read_bytes() for path in kept] == [before[name]]
    assert max(scan["difference"]["mean"] for scan in record(output)["scans"]) > 0


def test_the_night_after_leaves_what_was_made_again_as_it_is(set_up, archive, output):
    """The nightly command names no stride: what an operator chose for some scans is not undone in the dark.

    Both files that failed twice wait for an hour now.
    """
    again = {path: path.read_bytes() for path in pictures(output)[:3]}
    run = night(set_up, archive, output, "third night")
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Nothing to do")
    assert outcomes(output) == {"skipped": 13}
    skipped = messages(output, "skipped")
    assert {scan for scan in skipped if "after 2 failures in a row it waits" in skipped[scan]} == {"letter", "plate-09"}
    assert {path: path.read_bytes() for path in again} == again
    for path in again:
        told = json.loads(path.with_suffix(".json").read_text())
        assert told["settings"]["stride_yx"] == [64, 64]


def test_a_worker_that_is_killed_half_way_costs_no_finished_block(set_up, tmp_path):
    """All that runs below the worker dies without warning; the set-up starts the run again, which goes on."""
    shutil.copy(SCANS / "peasant-girls-1909.png", tmp_path / "girls.png")
    output = tmp_path / "out"
    typed = ("deployment", "run", "colorize-archive", "-p", f'inputs=["{tmp_path / "girls.png"}"]')
    words = ("-p", f"output={output}", "-p", "stride=32", "-p", "limit_memory=1500MiB")
    assert set_up.prefect(*typed, *words, "--flow-run-name", "killed half-way").code == 0
    records = output / "girls.zarr" / "versions"
    wait_until(lambda: list(records.glob("*/chroma/records/*.json")))
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            mine = str(set_up.home) in process.environ().get(MARK, "")
            if mine and ("worker start" in words or "prefect.engine" in words or "dask" in words):
                process.kill()
        except psutil.Error:
            continue
    assert not (output / "girls.color.tif").exists()
    assert ended(set_up, "killed half-way")["state_type"] == "COMPLETED"
    (certificate,) = verify(output / "girls.color.tif")
    assert certificate.passes
    work = json.loads((output / "girls.color.json").read_text())["work"]
    assert work["blocks_there"] >= 1
