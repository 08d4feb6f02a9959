"""What an operator does again: go on after a stop, try other settings, keep and compare versions."""

import json
import shutil

import cv2
import numpy as np
import pytest
import tifffile

from pipeline.store import ScanStore
from pipeline.types import Roi
from tests.printed import check

MODEL = ("--tile", "128", "--stride", "64")


@pytest.fixture(scope="module")
def scan(tmp_path_factory, scans):
    """A real photograph, small enough to be coloured in seconds."""
    image = cv2.imread(str(scans / "peasant-girls-1909.png"), cv2.IMREAD_GRAYSCALE)
    path = tmp_path_factory.mktemp("in") / "girls.png"
    cv2.imwrite(str(path), image[:500, :700])
    return path


@pytest.fixture(scope="module")
def done(command, cold_command, scan, tmp_path_factory):
    """Two versions: stride 64, then stride 32 for which its tiles were taken over."""
    output = tmp_path_factory.mktemp("out")
    assert command("run", scan, "-o", output, *MODEL).code == 0
    first = (output / "girls.color.tif").read_bytes()
    scan.rename(scan.with_suffix(".away"))
    try:
        ran = cold_command("reprocess", output, "--stride", "32")
    finally:
        scan.with_suffix(".away").rename(scan)
    assert ran.code == 0, ran.err
    return output, first, ran


def sidecar(output, name="girls"):
    return json.loads((output / f"{name}.color.json").read_text())


def versions(output, name="girls"):
    return ScanStore.open(output / f"{name}.zarr").version_names()


def test_reprocessing_needs_no_scan_and_keeps_the_version_before(done):
    output, first, _ = done
    before, now = versions(output)
    assert before.startswith("128-64-hann-default-")
    assert now.startswith("128-32-hann-default-")
    assert (output / f"girls.{before}.color.tif").read_bytes() == first
    assert sidecar(output)["settings"]["stride_yx"] == [32, 32]
    assert sidecar(output)["settings"]["anchor"] is sidecar(output, f"girls.{before}")["settings"]["anchor"] is True
    assert sidecar(output)["result"]["version"] == now
    assert sidecar(output, f"girls.{before}")["result"]["version"] == before
    assert (output / "girls.color.tif").read_bytes() != first


def test_tiles_taken_over_give_the_plain_colours_but_for_rounding(command, done, scan, tmp_path):
    output, _, _ = done
    assert sidecar(output)["settings"]["reused"] == versions(output)[0]
    ran = command("run", scan, "-o", tmp_path, "--tile", "128", "--stride", "32")
    assert ran.code == 0, ran.err
    everything = Roi(0, 500, 0, 700)
    plain, reused = (
        ScanStore.open(o / "girls.zarr").version(versions(o)[-1]).read(everything).astype(np.float32)
        for o in (tmp_path, output)
    )
    assert np.abs(plain).max() > 10
    # float16 keeps 11 bits: a stored mean of up to 64 is off by up to 1/64, and is a quarter of the new one.
    assert np.abs(plain - reused).max() <= 1 / 16
    pictures = [tifffile.imread(o / "girls.color.tif").astype(int) for o in (tmp_path, output)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_a_version_made_with_tiles_taken_over_counts_as_done(command, done):
    output, _, _ = done
    assert "1 skipped" in command("reprocess", output, "--stride", "32").line("done,")


def test_the_next_night_leaves_what_was_reprocessed(command, done, scan, tmp_path):
    output = shutil.copytree(done[0], tmp_path / "out")
    before = (output / "girls.color.tif").read_bytes()
    night = ("run", scan.parent, "-o", output, *MODEL)
    assert "reprocess" in command(*night).line("skipped  ", "girls")
    # A picture in another format is one of the same colours, and they stay the ones that reprocess made.
    for also in ("tiff,png", "tiff"):
        ran = command(*night, "--format", also)
        assert ran.code == 0, ran.err
        assert sidecar(output)["settings"]["stride_yx"] == [32, 32]
        assert sidecar(output)["flow"] == "reprocess-archive"
        assert (output / "girls.color.tif").read_bytes() == before
    np.testing.assert_array_equal(
        cv2.imread(str(output / "girls.color.png"))[..., ::-1], tifffile.imread(output / "girls.color.tif")
    )
    assert "1 done" in command(*night, "--force").line("done,")
    assert (sidecar(output)["settings"]["stride_yx"], sidecar(output)["flow"]) == ([64, 64], "colorize-archive")


def test_a_run_makes_no_block_under_the_name_of_what_another_model_made(command, done, scan, moody, tmp_path):
    output = shutil.copytree(done[0], tmp_path / "out")
    # What fits a limit depends on the precision, and which one is faster is measured anew on each machine.
    precision = ("--precision", "fp32")
    assert command("reprocess", output, "--model", moody, "--limit-memory", "8GiB", *precision).code == 0
    before, told = tifffile.imread(output / "girls.color.tif"), sidecar(output)
    # Less memory makes other blocks, of which this one has none.
    ran = command("run", scan, "-o", output, *MODEL, "--limit-memory", "1450MiB", *precision, "--format", "tiff,png")
    assert ran.code == 0, ran.err
    assert sidecar(output)["settings"] == told["settings"]
    # Nothing was made: what is told of the work is that of the colours, with the seconds of one more export.
    work, before_work = sidecar(output)["work"], told["work"]
    assert work["seconds"].pop("export") > before_work["seconds"].pop("export")
    assert work == before_work
    np.testing.assert_array_equal(cv2.imread(str(output / "girls.color.png"))[..., ::-1], before)
    # Colours that are damaged are not made whole by this run's model: what it makes has its own name.
    version = output / "girls.zarr" / "versions" / told["result"]["version"]
    shard = next(path for path in (version / "chroma" / "c").rglob("*") if path.is_file())
    damaged = bytearray(shard.read_bytes())
    damaged[100] ^= 1
    shard.write_bytes(damaged)
    ran = command("run", scan, "-o", output, *MODEL, "--format", "tiff,jpeg")
    assert ran.code == 0, ran.err
    assert (sidecar(output)["settings"]["model"], sidecar(output)["flow"]) == ("default", "colorize-archive")


def test_another_release_of_the_engine_makes_nothing_anew(command, scan, moody, tmp_path):
    words = ("run", scan, "-o", tmp_path, *MODEL, "--model", moody)
    assert command(*words).code == 0
    told = sidecar(tmp_path)
    told["settings"] |= {"engine": "tensorrt", "engine_version": "1.0", "precision": "fp16"}
    (tmp_path / "girls.color.json").write_text(json.dumps(told))
    assert "1 skipped" in command(*words).line("done,")
    # Nobody asked for that engine; of this one somebody does.
    assert "1 done" in command(*words, "--engine", "onnxruntime").line("done,")


def test_without_reuse_the_bytes_are_those_of_a_plain_run(command, scan, moody, tmp_path):
    again, plain = tmp_path / "again", tmp_path / "plain"
    assert command("run", scan, "-o", again, *MODEL, "--window", "average", "--model", moody).code == 0
    ran = command("reprocess", again, "--stride", "32", "--window", "hann", "--no-reuse", "--model", moody)
    assert ran.code == 0, ran.err
    words = ("--tile", "128", "--stride", "32", "--window", "hann", "--model", moody)
    assert command("run", scan, "-o", plain, *words).code == 0
    assert sidecar(again)["settings"] == sidecar(plain)["settings"]
    assert sidecar(again)["settings"]["anchor"]
    assert (again / "girls.color.tif").read_bytes() == (plain / "girls.color.tif").read_bytes()
    assert versions(again)[-1] == versions(plain)[-1]


def test_diff_tells_figures_and_draws_a_map(command, cold_command, done, tmp_path):
    output, _, _ = done
    ran = cold_command("diff", output / "girls.zarr", "--json", "--map", tmp_path / "map.png")
    assert ran.code == 0, ran.err
    told = check("diff", json.loads(ran.out))
    assert (told["old"], told["new"]) == tuple(versions(output))
    assert 0 < told["ciede2000"]["mean"] < 10
    assert cv2.imread(str(tmp_path / "map.png")).shape[1] >= 500
    table = command("diff", output / "girls.zarr", "128-64", "128-32")
    assert "every pixel" in table.out
    ran = command("diff", output / "girls.zarr", "128")
    assert (ran.code, len(ran.lines)) == (2, 1)
    assert "fits 2 of" in ran.err


def test_only_so_many_versions_stay(command, scan, moody, tmp_path):
    words = ("run", scan, "-o", tmp_path, "--model", moody, "--tile", "128")
    for stride in (128, 64, 32):
        ran = command(*words, "--stride", stride)
        assert ran.code == 0, ran.err
    names = versions(tmp_path)
    assert [name.split("-")[1] for name in names] == ["64", "32"]
    assert sorted(p.name for p in tmp_path.glob("*.tif")) == [f"girls.{names[0]}.color.tif", "girls.color.tif"]
    assert names[0].startswith("128-64-hann-moody-")
    picture = (tmp_path / f"girls.{names[0]}.color.tif").read_bytes()
    # The older one becomes the current one again, without being coloured again; the newer one is kept.
    ran = command(*words, "--stride", "64")
    assert "1 done" in ran.line("done,")
    assert sidecar(tmp_path)["result"]["version"] == names[0]
    assert sorted(versions(tmp_path)) == sorted(names)
    assert (tmp_path / "girls.color.tif").read_bytes() == picture
    assert command(*words, "--stride", "64", "--force", "--keep", "1").code == 0
    assert versions(tmp_path) == [names[0]]
    assert (tmp_path / "girls.color.tif").read_bytes() == picture
    assert [p.name for p in tmp_path.glob("*.tif")] == ["girls.color.tif"]


def test_reprocess_says_what_it_cannot_do(command, tmp_path, done):
    output, _, _ = done
    for words, says in (
        ((tmp_path,), "no NAME.zarr in this folder"),
        ((output, "portrait*"), "none of the 1 scans"),
        ((output, "--stride", "0"), "stride '0'"),
        ((output, "--keep", "0"), "keep '0'"),
        ((output, "--model", "nowhere"), "model 'nowhere'"),
    ):
        ran = command("reprocess", *words)
        assert (ran.code, len(ran.lines)) == (2, 1), ran.err
        assert says in ran.err
    ran = command("reprocess", output, "--stride", "129")
    assert ran.code == 1
    assert "stride 129 is larger than the tile" in ran.line("failed   ")


@pytest.fixture(scope="module")
def large(tmp_path_factory, scans):
    """25 megapixels of a real photograph, mirrored: six blocks."""
    image = cv2.imread(str(scans / "sunset-beach.jpg"), cv2.IMREAD_GRAYSCALE)
    row = np.concatenate([image, image[:, 2048:][:, ::-1]], axis=1)
    path = tmp_path_factory.mktemp("large") / "large.tif"
    tifffile.imwrite(path, np.concatenate([row, row[::-1]]), tile=(256, 256), compression="zlib")
    return path


def test_after_a_kill_the_same_command_goes_on_with_the_same_bytes(command, killed, large, tmp_path):
    words = ("run", large, "-o", tmp_path / "killed", "--stride", "256")
    records = "large.zarr/versions/*/chroma/records/*.json"
    killed(words, lambda: len(list((tmp_path / "killed").glob(records))) >= 2)
    there = len(list((tmp_path / "killed").glob(records)))
    assert not list((tmp_path / "killed").glob("*.color.*"))
    ran = command(*words)
    assert ran.code == 0, ran.err
    work = sidecar(tmp_path / "killed", "large")["work"]
    assert there <= work["blocks_there"] < work["blocks"]
    assert command("run", large, "-o", tmp_path / "whole", "--stride", "256").code == 0
    pictures = [(tmp_path / name / "large.color.tif").read_bytes() for name in ("killed", "whole")]
    assert pictures[0] == pictures[1]


def test_a_damaged_block_is_made_again_and_other_settings_never_mix(command, large, moody, tmp_path):
    words = ("run", large, "-o", tmp_path, "--model", moody, "--stride", "128")
    assert command(*words).code == 0
    whole = (tmp_path / "large.color.tif").read_bytes()
    (tmp_path / "whole.tif").write_bytes(whole)
    store = ScanStore.open(tmp_path / "large.zarr", writable=True)
    version = store.version(store.version_names()[0])
    shards = sorted(p for p in (version.path / "chroma" / "c").rglob("*") if p.is_file())
    damaged = bytearray(shards[1].read_bytes())
    damaged[100] ^= 1
    shards[1].write_bytes(damaged)
    shards[2].unlink()
    (version.path / "anchor.npy").unlink()
    attributes = json.loads((version.path / "zarr.json").read_text())
    attributes["attributes"]["complete"] = False
    (version.path / "zarr.json").write_text(json.dumps(attributes))
    (tmp_path / "large.color.json").unlink()
    assert command(*words).code == 0
    work = sidecar(tmp_path, "large")["work"]
    assert work["blocks"] - work["blocks_there"] == 2
    assert (tmp_path / "large.color.tif").read_bytes() == whole
    for other in (("--window", "average"), ("--no-anchor",)):
        assert command(*words, *other).code == 0
        assert sidecar(tmp_path, "large")["work"]["blocks_there"] == 0


def test_many_small_scans_share_their_tasks_and_fail_alone(command, moody, tmp_path):
    """Forty postcards and one that is no picture: each its own palette and bytes, as when it is coloured alone."""
    folder = tmp_path / "in"
    folder.mkdir()
    random = np.random.default_rng(5)
    for number in range(40):
        cv2.imwrite(str(folder / f"card{number:02}.png"), random.integers(0, 256, (90 + number, 140), np.uint8))
    (folder / "card99.png").write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    words = ("--model", moody, "--tile", "64", "--stride", "32", "--window", "hann")
    ran = command("run", folder, "-o", tmp_path / "all", *words)
    assert ran.code == 1
    assert "40 done" in ran.line("done,", "1 failed")
    assert ran.line("failed   ", "card99.png")
    assert command("run", folder / "card07.png", "-o", tmp_path / "one", *words).code == 0
    assert sidecar(tmp_path / "all", "card07")["settings"]["anchor"]
    assert sidecar(tmp_path / "all", "card07")["quality"] == sidecar(tmp_path / "one", "card07")["quality"]
    pictures = [(tmp_path / name / "card07.color.tif").read_bytes() for name in ("all", "one")]
    assert pictures[0] == pictures[1]


def test_what_a_killed_writer_left_does_not_make_a_version_incomplete(command, scan, moody, tmp_path):
    words = ("run", scan, "-o", tmp_path, "--model", moody, "--tile", "128")
    assert command(*words).code == 0
    store = ScanStore.open(tmp_path / "girls.zarr")
    version = store.version(store.version_names()[0])
    left = version.path / "chroma" / "c" / "0" / "0" / "0.0123456789.partial"
    left.write_bytes(b"half a shard")
    assert version.is_complete
    (tmp_path / "girls.color.json").unlink()
    assert command(*words).code == 0
    assert not left.exists()
    assert sidecar(tmp_path)["work"]["blocks_there"] == sidecar(tmp_path)["work"]["blocks"]
