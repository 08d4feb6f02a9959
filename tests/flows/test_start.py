"""How a command begins: what it imports, and what it leaves alone where nothing is to be done."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
import pytest
from rich.console import Console

from flows.catalogue.database import Catalogue, KnownRun, rebuild
from flows.catalogue.recorder import reading_catalogue
from flows.cli.run_report import RunReport
from flows.events import listening
from flows.inputs import find_scans
from flows.options import RunOptions, parse_options
from flows.outcome import ScanOutcome
from flows.request import RunRequest
from flows.run.endings import ALL_DONE, NOTHING, RunEnd
from flows.run.jobs import RunContext
from flows.run.last_look import State, state_of
from flows.run.planning import plan_scans
from flows.run.requests import colorize
from flows.run.unchanged import unchanged_scans
from tests.patience import PATIENCE_SECONDS
from tests.request import asked

# What a command has to do without that only prints, refuses or finds everything done; the first also without numbers.
ARRAYS = {"numpy", "cv2", "rasterio", "zarr", "tifffile", "imagecodecs", "scipy", "skimage", "pyvips", "sqlalchemy"}
ENGINES = {"prefect", "dask", "distributed", "torch", "openvino", "onnxruntime", "tensorrt", "tensorrt_rtx"}
_COMMAND = """
import json, sys
from flows.cli.app import main
try:
    main()
except SystemExit as ended:
    code = ended.code or 0
names = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps([code, names]), file=sys.stdout)
"""


def ran(*words: object, **variables: str) -> tuple[int, set[str], str]:
    """Exit code, packages imported and standard error of a command in an interpreter of its own."""
    made = subprocess.run(
        [sys.executable, "-c", _COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200", **variables},
        timeout=PATIENCE_SECONDS,
    )
    code, names = json.loads(made.stdout.splitlines()[-1])
    return code, set(names), made.stderr


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--help",), 0, ""),
        (("--version",), 0, ""),
        (("run", "--help"), 0, ""),
        (("config", "show"), 0, ""),
        (("run", "--strid", "3", "/nothing"), 2, "--stride"),
        (("run", "/nothing", "-o", "/nowhere"), 2, "no such file or folder"),
        (("run", "/", "-o", "/nowhere", "--stride", "0"), 2, "stride '0' is not a size"),
        (("run", "/", "-o", "/nowhere", "--format", "tif"), 2, "did you mean tiff?"),
        (("run", "/", "-o", "/nowhere", "--engine", "openvin"), 2, "did you mean openvino?"),
        (("run", "/", "-o", "/nowhere", "--palette-from", "/nothing"), 2, "no such folder"),
    ],
)
def test_what_needs_no_picture_imports_none_of_what_reads_them(words, code, says):
    ended, names, said = ran(*words)
    assert ended == code, said
    assert says in said
    assert not names & (ARRAYS | ENGINES)


@pytest.mark.e2e
def test_completion_imports_none_of_what_reads_pictures():
    """The shell runs the command at each press of the tabulator."""
    words = "colorize-archive run --engine "
    ended, names, said = ran(_COLORIZE_ARCHIVE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="3")
    assert ended == 0, said
    assert not names & (ARRAYS | ENGINES)


def test_inputs_that_are_not_there_are_one_line(tmp_path):
    code, _, said = ran("run", tmp_path / "a.tif", tmp_path / "b", "-o", tmp_path / "out")
    assert code == 2
    assert said.splitlines() == [
        f"colorize-archive: {tmp_path / 'a.tif'}, {tmp_path / 'b'}: no such file or folder, so nothing can be "
        "coloured; check the name"
    ]
    assert not (tmp_path / "out").exists()


class _Silent:
    def on(self, _: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans of the same name and one in a folder below."""
    folder = tmp_path_factory.mktemp("in")
    (folder / "box").mkdir()
    for seed, name in enumerate(("plate.png", "plate.tif", "box/card.png")):
        cv2.imwrite(str(folder / name), np.random.default_rng(seed).integers(0, 256, (60, 70), np.uint8))
    for path in folder.rglob("*.*"):
        os.utime(path, (10**9, 10**9))
    time.sleep(2.1)  # until the times of the last change, which nobody can set, show any further one
    return folder


def _request(folder: Path, output: Path, **more: object) -> RunRequest:
    return replace(asked(output, engine="identity", workers=1, **more), inputs=[str(folder)])


def _run(request: RunRequest) -> RunEnd:
    with listening(_Silent()):
        return colorize(request, None)


@pytest.fixture(scope="module")
def output(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run that is done."""
    output = tmp_path_factory.mktemp("out")
    assert _run(_request(folder, output)).name == ALL_DONE
    return output


def _states(output: Path) -> list[tuple[str, int, int]]:
    with Catalogue.open(output) as catalogue:
        return [(run.state, run.done, run.skipped) for run in catalogue.runs()]


def _files(output: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in output.rglob("*.color.*")}


@pytest.mark.e2e
def test_a_run_with_nothing_to_do_is_recorded_and_imports_no_engine_and_no_cluster(folder, output):
    before = _files(output)
    code, names, said = ran("run", folder, "-o", output, "--engine", "identity")
    assert code == 0, said
    assert names & ENGINES == set()
    counts, sheet = said.splitlines()[-2:]
    assert counts.startswith("0 done, 3 skipped, 0 failed")
    assert sheet == f"contact sheet: {(output / 'index.html').as_uri()}"
    assert _files(output) == before
    assert _states(output)[-1] == (NOTHING, 0, 3)
    record = json.loads(max(output.glob("runs/*.json")).read_text())
    assert [scan["status"] for scan in record["scans"]] == ["skipped"] * 3
    assert (record["backend"], record["precision"]) == ("identity", "fp32")  # what a later run goes on with
    recorded = [(run.state, run.done, run.skipped) for run in _rebuilt(output)]
    assert recorded == _states(output)


def _rebuilt(output: Path) -> list[KnownRun]:
    with rebuild(output) as catalogue:
        return catalogue.runs()


def test_a_look_leaves_to_the_plan_what_other_scans_decide(tmp_path):
    """Series and coloured copies: whether a scan's palette is still that of its neighbours takes more than a look."""
    (tmp_path / "out").mkdir()
    for more in ({"series": str(tmp_path)}, {"palette_from": str(tmp_path)}, {"salvage": True}):
        options = parse_options(asked(tmp_path / "out", engine="identity", **more))
        with rebuild(tmp_path / "out") as catalogue:
            assert unchanged_scans([], options, catalogue) is None


def _looked(options: RunOptions, folder: Path) -> list[ScanOutcome] | None:
    found = find_scans([str(folder)], options.output, options.force)
    with Catalogue.open(options.output) as catalogue:
        looked = unchanged_scans(found.scans, options, catalogue)
    return None if looked is None else looked.outcomes


def _planned(options: RunOptions, folder: Path) -> list[ScanOutcome] | None:
    """What the plan itself says, where it has nothing to do."""
    found = find_scans([str(folder)], options.output, options.force)
    with reading_catalogue(options.output) as files:
        planned = plan_scans(found.scans, replace(RunContext.of(options), files=files))
    outcomes = [each for each in planned if isinstance(each, ScanOutcome) and each.status == "skipped"]
    return outcomes if len(outcomes) == len(planned) else None


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("more", "is_due"),
    [
        ({}, False),
        ({"precision": "fp32"}, False),
        ({"workers": 3}, False),
        ({"stride": 64}, True),
        ({"formats": "png"}, True),
        ({"metadata": False}, True),
        ({"force": True}, True),
        ({"engine": "openvino", "precision": "fp32"}, True),
        ({"model": "free"}, False),  # the identity engine asks no model
    ],
)
def test_the_look_says_what_the_plan_says(folder, output, more, is_due):
    request = replace(_request(folder, output), **more)
    options = parse_options(request)
    looked = _looked(options, folder)
    assert (looked is None) == is_due
    assert looked == _planned(options, folder)


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """For the body, another file may lie where ``path`` lay."""
    kept = path.with_name(f"{path.name}.aside")
    path.rename(kept)
    try:
        yield path
    finally:
        kept.replace(path)


@pytest.mark.e2e
def test_whatever_changes_is_due(folder, output):
    options = parse_options(_request(folder, output))
    picture, sidecar = output / "plate.color.tif", output / "plate.color.json"
    samples = picture.read_bytes()
    assert _looked(options, folder) is not None
    with aside(picture):
        assert _looked(options, folder) is None
        picture.write_bytes(samples[:-1])
        assert _looked(options, folder) is None
    with aside(sidecar):
        sidecar.write_text("{")
        assert _looked(options, folder) is None
    cv2.imwrite(str(folder / "new.png"), np.zeros((60, 70), np.uint8))
    assert _looked(options, folder) is None
    (folder / "new.png").unlink()
    assert _looked(options, folder) is not None
    (folder / "plate.tif").write_bytes((folder / "plate.tif").read_bytes())
    assert _looked(options, folder) is None


def _state(folder: Path, output: Path, **more: object) -> State | None:
    options = parse_options(_request(folder, output, **more))
    return state_of(find_scans([str(folder)], output).scans, RunContext.of(options))


def _written_again(path: Path) -> None:
    """With the same bytes, and the time of the last change set back."""
    before = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


_CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "a picture is written again": lambda _, output: _written_again(output / "plate.color.tif"),
    "a sidecar is written again": lambda _, output: _written_again(output / "box" / "card.color.json"),
    "a scan is written again": lambda folder, _: _written_again(folder / "box" / "card.png"),
    "a scan is new": lambda folder, _: shutil.copy(folder / "plate.png", folder / "new.png"),
    "a result is new": lambda _, output: shutil.copy(output / "plate.color.json", output / "other.color.json"),
    "a rule": lambda _, output: (output / "policy.yaml").write_text("rules: []"),
    "hints beside a scan": lambda folder, _: (folder / "box" / "card.hints.json").write_text("{}"),
    "hints beside a result": lambda _, output: (output / "plate.hints.json").write_text("{}"),
    "a link to a folder": lambda folder, output: (output / "box" / "up").symlink_to(folder),
}


@pytest.fixture
def copied(folder: Path, output: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Scans and results that may be changed."""
    return shutil.copytree(folder, tmp_path / "in"), shutil.copytree(output, tmp_path / "out")


@pytest.mark.e2e
@pytest.mark.parametrize("change", _CHANGES)
def test_a_state_tells_every_change(copied, change):
    before = _state(*copied)
    assert before is not None
    assert _state(*copied) == before
    (copied[1] / "index.html").write_text("a sheet")
    (copied[1] / "runs" / "one.json").write_text("{}")
    assert _state(*copied) == before
    time.sleep(0.02)  # a tick of the file system
    _CHANGES[change](*copied)
    after = _state(*copied)
    assert after is None or after.sha256 != before.sha256


@pytest.mark.e2e
def test_other_settings_are_another_state_and_another_deadline_is_not(copied):
    before = _state(*copied)
    assert before is not None
    assert _state(*copied, until="+9h") == before
    for more in ({"stride": 64}, {"formats": "png"}, {"metadata": False}):
        assert _state(*copied, **more) != before


@pytest.mark.e2e
def test_the_last_look_is_taken_over_until_a_file_changes(folder, output, monkeypatch):
    time.sleep(2.1)  # as above
    for _ in range(2):  # the first of them may have to read what tests before have changed
        assert _run(_request(folder, output)).name == NOTHING
    first = _states(output)[-1]
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.results.sidecar.read_text", None)  # no sidecar is opened
        assert _run(_request(folder, output)).name == NOTHING
    assert _states(output)[-1] == first
    records = [json.loads(path.read_text())["scans"] for path in sorted(output.glob("runs/*.json"))[-2:]]
    assert records[0] == records[1]
    picture = output / "plate.color.tif"
    with aside(picture):
        assert _looked(parse_options(_request(folder, output)), folder) is None


def test_the_last_line_is_an_address_of_the_contact_sheet(tmp_path, monkeypatch):
    """Of a folder by its relative name, with characters that an address has to spell out."""
    monkeypatch.chdir(tmp_path)
    folder = Path("Böcke #1", "100 %")
    folder.mkdir(parents=True)
    said = io.StringIO()
    with RunReport(Console(file=said, width=200)) as report:
        report.print_summary(str(folder))
        assert "contact sheet" not in said.getvalue()  # there is none
        (folder / "index.html").write_text("here")
        report.print_summary(str(folder))
    *_, last = said.getvalue().splitlines()
    address = last.removeprefix("contact sheet: ")
    assert address == f"{tmp_path.as_uri()}/B%C3%B6cke%20%231/100%20%25/index.html"
    assert Path(unquote(urlsplit(address).path)).read_text() == "here"
