"""``colorize-archive engines`` as a user types it."""

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from engines.registry import precisions_of
from engines.spec import PALETTE, find_model
from tests.models import make_model
from tests.printed import check


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


def test_list_names_what_runs_and_what_auto_takes(command, cold_command):
    ran = cold_command("engines", "list")
    assert ran.code == 0, ran.err
    for name in ("openvino", "onnxruntime", "tensorrt", "tensorrt_rtx", "onnxruntime_cuda"):
        assert name in ran.out
    assert "auto takes: engine openvino" in ran.out
    assert "and for the palette: engine openvino" in ran.out
    told = check("engines list", json.loads(command("engines", "list", "--json").out))
    rows = {row["backend"]: row for row in told["backends"]}
    assert rows["openvino"]["precisions"] == precisions_of("openvino", find_model("default"))
    assert told["auto"]["backend"] == told["palette"]["backend"] == "openvino"
    assert rows["openvino"]["palette"] == precisions_of("openvino", find_model("default").as_network(PALETTE))
    assert rows["identity"]["palette"] == []


def test_check_gives_the_figures_and_its_code_says_whether_it_passes(command, cold_command, tiny):
    words = ("engines", "check", "--model", tiny, "--backend", "openvino", "--precision", "fp32", "--tile", "64")
    ran = cold_command(*words)
    assert ran.code == 0, ran.err
    assert "99.9th percentile" in ran.out
    (told,) = check("engines check", json.loads(command(*words, "--json").out))["engines"]
    assert told["engine"]["precision"] == "fp32"
    assert told["parity"]["passes"]
    assert told["parity"]["p999"] <= told["parity"]["bound"] == 0.05
    table = command("engines", "check", "--model", tiny, "--tile", "64", "--all").out.splitlines()
    assert (
        sum(line.startswith(("| openvino | generator | fp32", "| onnxruntime | generator | fp32")) for line in table)
        == 2
    )


def test_palette_networks_are_checked_and_measured_too(command):
    words = ("--backend", "openvino", "--precision", "fp32", "--tile", "64")
    told = json.loads(command("engines", "check", *words, "--json").out)["engines"]
    assert [each["engine"]["network"] for each in told] == ["generator", "palette"]
    assert all(each["parity"]["passes"] for each in told)
    assert told[1]["engine"]["tile_yx"] == [224, 224]
    ran = command("engines", "bench", *words, "--network", "palette", "--seconds", "0.2")
    assert ran.code == 0, ran.err
    assert "| palette | fp32 | 2 |" in ran.out
    ran = command("engines", "bench", "--model", "pix2pix-unet", "--network", "palette")
    assert (ran.code, len(ran.lines)) == (2, 1)


def test_bench_prints_a_table_and_what_was_left_out(cold_command, tiny, tmp_path):
    words = ("engines", "bench", "--model", tiny, "--tile", "64", "--batch", "2", "--seconds", "0.2")
    ran = cold_command(*words, "--plot", tmp_path / "speed.png")
    assert ran.code == 0, ran.err
    assert ran.out.count("| onnxruntime ") == 1
    assert "left out" in ran.out
    assert cv2.imread(str(tmp_path / "speed.png")).std() > 5


def test_build_inspect_and_clean_of_a_real_tensorrt_engine(cold_command, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
    words = ("engines", "build", "--backend", "tensorrt_rtx", "--precision", "fp16", "--tile", "64", "--batch", "2")
    words = (*words, "--network", "generator")
    first, again, anew = (cold_command(*words, *more) for more in ((), (), ("--force",)))
    assert [ran.code for ran in (first, again, anew)] == [0, 0, 0], first.err
    assert [ran.out.split()[0] for ran in (first, again, anew)] == ["built", "there", "built"]
    path = next(word for word in first.out.split() if word.endswith(".engine"))
    told = cold_command("engines", "inspect", path)
    assert told.code == 0
    for words in (("backend", "tensorrt_rtx"), ("precision", "fp16"), ("model", "default")):
        assert any(line.split()[:2] == list(words) for line in told.out.splitlines())
    assert path in cold_command("engines", "list").out.replace("\n", "")
    assert (
        cold_command("engines", "clean", "--model", "default").out.strip()
        == "1 engine files and 0 measurements deleted"
    )
    ran = cold_command("engines", "inspect", path)
    assert (ran.code, len(ran.lines)) == (2, 1)


def test_what_is_wrong_is_one_line(command, tiny, tmp_path):
    (tmp_path / "not.engine").write_bytes(b"nothing of ours")
    for words in (
        ("check", "--model", "warp"),
        ("check", "--backend", "warp"),
        ("check", "--precision", "fp7"),
        ("check", "--model", tiny, "--tile", "30"),
        ("check", "--tile", "many"),
        ("build", "--backend", "warp"),
        ("build", "--backend", "tensorrt"),
        ("build", "--backend", "tensorrt_rtx", "--precision", "fp7"),
        ("bench", "--model", tiny, "--tile", "64", "--seconds", "0.1", "--plot", tmp_path / "nowhere" / "x.png"),
        ("bench", "--backend", "tensorrt_cuda"),
        ("inspect", tmp_path / "not.engine"),
        ("inspect", tmp_path),
        ("quantize", "--model", tiny, "--out", tiny),
        ("quantize", "--model", tiny, "--out", tmp_path / "new", "--tiles", tmp_path / "nowhere"),
    ):
        ran = command("engines", *words)
        assert (ran.code, len(ran.lines)) == (2, 1), (words, ran.err)
    assert not (tmp_path / "new").exists()


def test_quantize_keeps_what_keeps_the_picture_and_drops_the_rest(command, cold_command, tiny, tmp_path):
    pytest.importorskip("nncf", reason="the extra int8 is not installed")
    random = np.random.default_rng(0)
    for index in range(2):
        scan = cv2.GaussianBlur(random.integers(0, 256, (300, 400), np.uint8), (0, 0), 3 + index)
        cv2.imwrite(str(tmp_path / f"{index}.png"), cv2.normalize(scan, None, 0, 255, cv2.NORM_MINMAX))
    words = ("engines", "quantize", "--model", tiny, "--tiles", tmp_path, "--backend", "onnxruntime")
    ran = cold_command(*words, "--out", tmp_path / "dropped")
    figure = "99.9th percentile" in ran.out
    assert figure
    if ran.code == 0:
        assert find_model(str(tmp_path / "dropped")).card.int8_sha256
    else:
        assert ran.code == 1
        assert "not kept" in ran.lines[-1]
        assert not (tmp_path / "dropped").exists()
    kept = command(*words, "--out", tmp_path / "kept", "--keep")
    assert kept.code == 0, kept.err
    model = find_model(str(tmp_path / "kept"))
    assert precisions_of("onnxruntime", model) == ["int8", "fp32"]
    assert command("engines", "check", "--model", tmp_path / "kept", "--precision", "fp32").code == 0


def test_a_run_says_its_precision_and_records_it(command, tmp_path):
    cv2.imwrite(str(tmp_path / "scan.png"), np.full((256, 256), 90, np.uint8))
    ran = command("run", tmp_path / "scan.png", "-o", tmp_path / "out", "--precision", "fp32", "-v")
    assert ran.code == 0, ran.err
    assert ", fp32: the fastest CPU runtime installed" in ran.err
    told = json.loads((tmp_path / "out" / "scan.color.json").read_text())
    assert told["settings"]["precision"] == told["settings"]["palette_precision"] == "fp32"
    assert told["settings"]["palette_engine"] == "openvino"
    (record,) = (tmp_path / "out" / "runs").glob("*.json")
    assert json.loads(record.read_text())["palette_model_sha256"] == told["settings"]["palette_sha256"]
    # Left to itself, the folder's precision stays: another one would make every scan anew.
    again = command("run", tmp_path / "scan.png", "-o", tmp_path / "out")
    assert again.line("skipped  ")
    for precision in ("fp7", "fp16"):
        ran = command(
            "run", tmp_path / "scan.png", "-o", tmp_path / "out", "--precision", precision, "--engine", "openvino"
        )
        assert (ran.code, len(ran.lines)) == (2, 1), ran.err
        assert precision in ran.lines[0]


@pytest.mark.parametrize("driver", ["none", "broken"])
def test_with_nvidias_library_and_no_driver_or_a_broken_one_there_is_a_picture_and_a_reason(
    environment, tmp_path, driver
):
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
    if shutil.which("nvidia-smi"):
        pytest.skip("a driver is here")
    cv2.imwrite(str(tmp_path / "scan.png"), np.full((64, 64), 90, np.uint8))
    changed = dict(environment)
    if driver == "broken":
        (tmp_path / "libcuda.so.1").write_text("not a library")
        changed["LD_LIBRARY_PATH"] = str(tmp_path)
    words = ["run", tmp_path / "scan.png", "-o", tmp_path / "out", "-v"]
    ran = subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env=changed,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    (line,) = (line for line in ran.stderr.splitlines() if line.startswith("engine "))
    assert "engine openvino" in line
    assert "tensorrt_rtx: no NVIDIA driver" in line
    assert (tmp_path / "out" / "scan.color.tif").is_file()
