"""The main job from end to end."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from flows.catalogue.database import Catalogue
from pipeline.colour.lab import lab_from_rgb, lightness_from_samples
from pipeline.store import ScanStore
from pipeline.support.files import folder_lock
from pipeline.types import Roi
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.processes import run_watched


def picture(height, width, dtype=np.uint8, channels=1, seed=3):
    """Smooth shapes with grain: something between a photograph and noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((6, 8, channels) if channels > 1 else (6, 8)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grainy = np.clip(smooth + rng.normal(0, 0.02, smooth.shape), 0, 1)
    return np.rint(grainy * np.iinfo(dtype).max).astype(dtype)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four scans of different kinds, sizes that are no multiple of anything."""
    folder = tmp_path_factory.mktemp("in")
    cv2.imwrite(str(folder / "gray8.png"), picture(611, 803))
    tifffile.imwrite(folder / "gray16.tif", picture(317, 1201, np.uint16), compression="zlib")
    cv2.imwrite(str(folder / "colour.png"), picture(300, 420, channels=3))
    (folder / "box").mkdir()
    cv2.imwrite(str(folder / "box" / "postcard.png"), picture(90, 61))
    return folder


@pytest.fixture(scope="module")
def identity(lone_command, command, folder, tmp_path_factory):
    """One worker and no server, and two workers with other windows' order of work: the same settings, two outputs."""
    outputs = []
    for workers, run in ((1, lone_command), (2, command)):
        output = tmp_path_factory.mktemp(f"out{workers}")
        ran = run(
            "run", folder, "-o", output, "--engine", "identity", "--tile", "200x136", "--stride", "77x50",
            "--window", "hann", "--workers", workers,
        )  # fmt: skip
        assert ran.code == 0, ran.err
        outputs.append(output)
    return outputs


STEMS = ["gray8", "gray16", "colour", "box/postcard"]


def version_in(output, stem):
    """The one version of a scan's colours."""
    store = ScanStore.open(output / f"{stem}.zarr")
    (name,) = store.version_names()
    return store.version(name)


def source_samples(folder, stem):
    path = next(folder.glob(f"{stem}.*"))
    read = tifffile.imread(path) if path.suffix == ".tif" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return read[..., ::-1] if read.ndim == 3 else read


@pytest.mark.parametrize("stem", STEMS)
def test_identity_gives_the_scan_back(identity, folder, stem):
    samples = source_samples(folder, stem)
    store = ScanStore.open(identity[0] / f"{stem}.zarr")
    everything = Roi(0, samples.shape[0], 0, samples.shape[1])
    stored = store.read_scan(everything)
    np.testing.assert_array_equal(stored, samples)
    lightness = lightness_from_samples(stored).astype(np.float16)
    chroma = version_in(identity[0], stem).read(everything)
    np.testing.assert_array_equal(chroma[0], lightness)
    np.testing.assert_array_equal(chroma[1], lightness)
    result = tifffile.imread(identity[0] / f"{stem}.color.tif")
    assert result.dtype == samples.dtype
    if samples.ndim == 2:
        np.testing.assert_array_equal(result, np.repeat(samples[..., None], 3, axis=2))
    else:
        assert (np.ptp(result.astype(int), axis=2) == 0).all()


@pytest.mark.parametrize("stem", STEMS)
def test_one_and_two_workers_write_the_same_bytes(identity, stem):
    one, two = (output / f"{stem}.color.tif" for output in identity)
    assert one.read_bytes() == two.read_bytes()
    chunks = [
        sorted(p for p in (version_in(o, stem).path / "chroma" / "c").rglob("*") if p.is_file()) for o in identity
    ]
    assert len(chunks[0]) == len(chunks[1]) > 0
    assert [p.read_bytes() for p in chunks[0]] == [p.read_bytes() for p in chunks[1]]


def test_the_sidecar_says_exactly_what_was_done(identity, folder):
    sidecar = json.loads((identity[0] / "gray16.color.json").read_text())
    sha256 = subprocess.run(["sha256sum", folder / "gray16.tif"], capture_output=True, text=True, check=True).stdout
    assert sidecar["source"]["sha256"] == sha256.split()[0]
    assert sidecar["settings"]["tile_yx"] == [200, 136]
    assert sidecar["settings"]["stride_yx"] == [77, 50]
    assert sidecar["settings"]["window"] == "hann"
    assert sidecar["settings"]["engine"] == "identity"
    assert sidecar["settings"]["anchor"] is False
    assert sidecar["pictures"]["tiff"]["bytes"] == (identity[0] / "gray16.color.tif").stat().st_size
    assert set(sidecar["work"]["seconds"]) == {"ingest", "colorize", "export"}
    assert {"zarr", "dask", "prefect"} <= set(sidecar["versions"])


def test_nothing_is_left_beside_the_results(identity):
    for output in identity:
        assert not [p for p in output.rglob("*") if p.name.endswith((".part", ".tmp"))]
        assert sorted(p.name for p in output.iterdir()) == sorted(
            [
                ".lock",
                "box",
                "catalogue.sqlite",
                "index.html",
                "runs",
                "thumbs",
                *(f"{stem}{ending}" for stem in STEMS[:3] for ending in (".zarr", ".color.tif", ".color.json")),
            ]
        )


def test_the_shipped_model_colours_and_keeps_lightness(command, scans, tmp_path):
    """Real scans at 8 and 16 bit: visible colour, more than one tint, and the scan's own lightness everywhere."""
    names = ["peasant-girls-1909.png", "tony-webster-16bit.tif"]
    ran = command("run", *(scans / name for name in names), "-o", tmp_path)
    assert ran.code == 0, ran.err
    assert "engine openvino" in ran.err
    assert "Warning" not in ran.err
    for name, bound in zip(names, (0.5, 0.02), strict=True):
        samples = source_samples(scans, name.split(".")[0])
        result = tifffile.imread(tmp_path / f"{name.split('.')[0]}.color.tif")
        assert result.dtype == samples.dtype
        lightness = lightness_from_samples(samples)
        assert np.abs(lightness_from_samples(result) - lightness).max() <= bound
        lab = lab_from_rgb(result.astype(np.float32) / np.iinfo(result.dtype).max)
        chroma = np.hypot(lab[1], lab[2])
        assert np.percentile(chroma, 90) > 8
        assert np.hypot(lab[1].std(), lab[2].std()) > 3


def test_a_real_engine_writes_the_same_bytes_for_any_workers_and_blocks(command, scans, tmp_path):
    pictures, blocks = [], []
    for workers, limit in ((1, "4GiB"), (3, "6GiB")):
        output = tmp_path / str(workers)
        words = ("--workers", workers, "--limit-memory", limit, "--stride", 192, "--window", "hann")
        # Which precision is faster is measured for each number of threads.
        words += ("--precision", "fp32")
        ran = command("run", scans / "sunset-beach.jpg", "-o", output, *words)
        assert ran.code == 0, ran.err
        pictures.append((output / "sunset-beach.color.tif").read_bytes())
        sidecar = json.loads((output / "sunset-beach.color.json").read_text())
        assert sidecar["settings"]["anchor"]
        blocks.append(sidecar["work"]["block_px"])
    assert blocks[0] != blocks[1]
    assert pictures[0] == pictures[1]


def test_done_scans_are_skipped_until_something_changes(command, folder, tmp_path):
    words = ("run", folder / "box", "-o", tmp_path, "--engine", "identity")
    assert "1 done" in command(*words).line("done,")
    before = (tmp_path / "postcard.color.tif").stat().st_mtime_ns
    ran = command(*words)
    assert ran.code == 0
    assert "--force" in ran.line("skipped  ", "postcard")
    assert (tmp_path / "postcard.color.tif").stat().st_mtime_ns == before
    assert "1 done" in command(*words, "--stride", "64").line("done,")
    assert "1 done" in command(*words, "--stride", "64", "--force").line("done,")


def test_bad_scans_fail_alone_and_say_why(command, tmp_path, scans):
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    cv2.imwrite(str(folder / "good.png"), picture(100, 120))
    (folder / "empty.tif").write_bytes(b"")
    (folder / "letter.tif").write_text("Dear archive,\n")
    whole = (scans / "aerial-caliterra.jpg").read_bytes()
    (folder / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    tiff = (scans / "tony-webster-16bit.tif").read_bytes()
    (folder / "half.tif").write_bytes(tiff[: len(tiff) // 2])
    cv2.imwrite(str(folder / "good.jpg"), picture(100, 120))
    for name in ("a.heic", "b.HEIC", "notes.txt", ".hidden.txt"):
        (folder / name).write_text("?")
    ran = command("run", folder, folder / "missing.tif", "-o", output, "--engine", "identity")
    assert ran.code == 1
    assert "empty" in ran.line("failed   ", "empty.tif")
    assert ran.line("failed   ", "letter.tif")
    assert "cut off" in ran.line("failed   ", "torn.jpg")
    assert ran.line("failed   ", "half.tif")
    assert ran.line("failed   ", "missing.tif", "no such file")
    assert "2 done" in ran.line("done,", "5 failed")
    assert sorted(p.name for p in output.glob("*.tif")) == ["good.color.tif", "good.png.color.tif"]
    assert sorted(p.name for p in output.glob("*.zarr*")) == ["good.png.zarr", "good.zarr"]
    assert ran.line("3 files not taken for scans by their endings: 2 .heic, 1 .txt; name one")
    (record,) = (output / "runs").glob("*.json")
    assert json.loads(record.read_text())["not_taken"] == {".heic": 2, ".txt": 1}
    failed = [s for s in json.loads(record.read_text())["scans"] if s["status"] == "failed"]
    assert all(s["message"].count("\n") == 0 for s in failed)
    assert len(failed) == 5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--tile", "64", "--stride", "65"), "stride 65 is larger than the tile (64)"),
        (("--tile", "0"), "tile '0' is not a size"),
        (("--tile", "100"), "takes multiples of"),
        (("--engine", "warp"), "unknown engine 'warp'"),
        (("--window", "boxcar"), "unknown window 'boxcar'"),
        (("--model", "nowhere"), "model 'nowhere'"),
        (("--workers", "many"), "workers 'many'"),
        (("--limit-memory", "lots"), "limit-memory 'lots'"),
        (("--scheduler", "somewhere"), "scheduler 'somewhere'"),
        (("--output", "{file}/out"), "cannot be written"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(command, scans, tmp_path, words, says):
    (tmp_path / "file").write_text("")
    words = [word.format(file=tmp_path / "file") for word in words]
    ran = command("run", scans / "peasant-girls-1909.png", "--output", tmp_path / "out", *words)
    assert ran.code == 2
    # The first command of a machine measures its engine, and says so, before it looks at the output.
    (line,) = (line for line in ran.lines if not line.startswith("measuring the precisions"))
    assert says in line
    assert not list(tmp_path.rglob("*.tif"))


def test_a_limit_that_cannot_hold_names_one_that_can(command, scans, tmp_path):
    ran = command("run", scans / "peasant-girls-1909.png", "-o", tmp_path, "--limit-memory", "1.1GiB")
    assert ran.code == 1
    assert "--limit-memory" in ran.line("failed   ", "projected memory")
    ran = command("run", scans / "peasant-girls-1909.png", "-o", tmp_path, "--limit-memory", "1GiB")
    assert ran.code == 2  # not even its processes would fit
    assert "give --limit-memory 1.25GiB" in ran.line("processes alone")


def test_an_empty_folder_is_bad_usage(command, tmp_path):
    ran = command("run", tmp_path, "-o", tmp_path / "out")
    assert (ran.code, len(ran.lines)) == (2, 1)
    assert "no scans in this folder" in ran.err


def test_dry_run_tells_and_does_nothing(command, scans, tmp_path):
    ran = command("run", scans / "sunset-beach.jpg", "-o", tmp_path / "out", "--stride", "128", "--dry-run")
    assert ran.code == 0
    assert "465" in ran.out
    assert "8.4" in ran.out
    assert not (tmp_path / "out").exists()


def test_memory_stays_below_the_plan(environment, command, scans, tmp_path):
    """The peak of all processes together, against the projection that --limit-memory is checked with."""
    scan = scans / "sunset-beach.jpg"
    words = [str(scan), "-o", str(tmp_path / "out"), "--stride", "256"]
    planned = command("run", *words, "--dry-run").out
    (row,) = [line for line in planned.splitlines() if "sunset-beach" in line]
    projected_mib = float(row.split("│")[5])
    ran = run_watched([sys.executable, "-m", "flows.cli", "run", *words], environment)
    assert ran.code == 0, ran.err
    assert ran.peak_bytes / 2**20 <= projected_mib <= 2048
    assert ran.peak_bytes <= 2.5e9


def test_whole_frame_is_one_tile(command, folder, tmp_path):
    ran = command("run", folder / "gray8.png", "-o", tmp_path, "--tile", "whole")
    assert ran.code == 0, ran.err
    sidecar = json.loads((tmp_path / "gray8.color.json").read_text())
    assert sidecar["work"]["tiles"] == 1
    assert sidecar["settings"]["tile_yx"][0] >= 611
    assert tifffile.imread(tmp_path / "gray8.color.tif").shape == (611, 803, 3)


def test_an_existing_scheduler_runs_the_blocks(command, folder, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        ran = command("run", folder / "gray8.png", "-o", tmp_path, "--engine", "identity", "--scheduler", address)
        assert ran.code == 0, ran.err
        assert (tmp_path / "gray8.color.tif").is_file()
        assert len(cluster.scheduler_info["workers"]) == 1


def test_a_scheduler_that_is_not_there_is_said(command, folder, tmp_path):
    ran = command(
        "run", folder / "gray8.png", "-o", tmp_path, "--engine", "identity", "--scheduler", "tcp://127.0.0.1:9"
    )
    assert ran.code == 2
    assert "no answer within" in ran.line("tcp://127.0.0.1:9")


def test_a_full_disk_is_one_line_and_leaves_nothing_half_done(command, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        noise = np.random.default_rng(0).integers(0, 256, (1500, 1500), np.uint8)
        cv2.imwrite(str(tmp_path / "noise.png"), noise)
        ran = command("run", tmp_path / "noise.png", "-o", small, "--engine", "identity")
        assert ran.code == 1
        assert "disk" in ran.line("failed   ")
        assert not list(small.glob("*.color.*"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_ctrl_c_leaves_nothing_that_looks_finished_and_the_same_command_goes_on(command, environment, scans, tmp_path):
    words = [sys.executable, "-m", "flows.cli", "run", str(scans / "sunset-beach.jpg"), "-o", str(tmp_path)]
    process = subprocess.Popen(
        words,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )
    wait_until(lambda: list(tmp_path.glob("sunset-beach.zarr/versions/*/chroma")))
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "stopping after the blocks in work" in said
    assert "run the same command to go on" in said
    (record,) = tmp_path.glob("runs/*.json")
    told = json.loads(record.read_text())
    assert (told["state"], [scan["status"] for scan in told["scans"]]) == ("Cancelled", ["stopped"])
    with Catalogue.open(tmp_path) as catalogue:
        assert [each.state for each in catalogue.runs()] == ["Cancelled"]
    assert not list(tmp_path.glob("*.color.*"))
    ran = command("run", scans / "sunset-beach.jpg", "-o", tmp_path)
    assert ran.code == 0, ran.err
    assert (tmp_path / "sunset-beach.color.tif").is_file()


def test_two_runs_do_not_mix_on_one_output(command, folder, tmp_path):
    with folder_lock(tmp_path):
        ran = command("run", folder / "gray8.png", "-o", tmp_path, "--engine", "identity")
    assert ran.code == 2
    assert "another run is working on this output" in ran.line("colorize-archive:")
    assert not list(tmp_path.glob("*.color.*"))


def test_force_heals_a_damaged_store(command, folder, tmp_path):
    words = ("run", folder / "gray8.png", "-o", tmp_path, "--engine", "identity")
    assert command(*words).code == 0
    picture = (tmp_path / "gray8.color.tif").read_bytes()
    (shard,) = [p for p in (tmp_path / "gray8.zarr" / "scan" / "c").rglob("*") if p.is_file()]
    whole = bytearray(shard.read_bytes())
    whole[len(whole) // 3] ^= 0xFF
    shard.write_bytes(whole)
    ran = command(*words, "--stride", "100")
    assert ran.code == 1
    assert "damaged" in ran.line("failed   ", "--force")
    assert command(*words, "--force").code == 0
    assert (tmp_path / "gray8.color.tif").read_bytes() == picture
    shard.unlink()
    assert command(*words, "--stride", "100").code == 0
    assert (tmp_path / "gray8.color.tif").read_bytes() == picture


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gray16.color.tif", ["colour added by an algorithm", "gray16.tif", "identity", "hann"]),
        ("gray16.color.json", ["colour added by an algorithm", "sha256"]),
        ("gray16.zarr", ["store of an ingested scan", "1201 x 317 px", "uint16", "hann"]),
    ],
)
def test_inspect_says_what_a_result_is(command, identity, name, says):
    ran = command("inspect", identity[0] / name)
    assert ran.code == 0
    assert all(word in ran.out for word in says)


def test_inspect_says_what_a_scan_is_and_what_is_none(command, scans, tmp_path):
    assert "1400 x 700 px" in command("inspect", scans / "tony-webster-16bit.tif").out
    ran = command("inspect", tmp_path)
    assert (ran.code, len(ran.lines)) == (2, 1)
    assert "a folder, not a scan" in ran.err
    ran = command("inspect", tmp_path / "nothing")
    assert (ran.code, len(ran.lines)) == (2, 1)


def test_models_lists_what_is_shipped(command):
    assert "default: palette_unet" in command("models").out


def test_the_version_is_that_of_the_project(command):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    ran = command("--version")
    assert (ran.code, ran.out.split()) == (0, ["colorize-archive", project["version"]])
