"""Reprocessing some of an archive: by name, folder and seam score, and what it says of the change."""

import json

import cv2
import pytest

from flows.run.reprocess_plan import find_stores, worse_than
from pipeline.errors import UsageError

STEMS = ["albums/1910-1", "albums/1910-2", "albums/more/x", "albums2/y", "map"]


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ([], STEMS),
        (["map"], ["map"]),
        (["albums/"], STEMS[:3]),
        (["albums/more/"], ["albums/more/x"]),
        (["albums/1910*", "m*"], ["albums/1910-1", "albums/1910-2", "map"]),
        (["*/x"], ["albums/more/x"]),
    ],
)
def test_scans_are_chosen_by_name_pattern_and_folder(tmp_path, patterns, chosen):
    for stem in STEMS:
        (tmp_path / f"{stem}.zarr").mkdir(parents=True)
    assert [found.stem for found in find_stores(tmp_path, patterns)] == chosen


def test_a_folder_without_scans_is_told(tmp_path):
    (tmp_path / "map.zarr").mkdir()
    with pytest.raises(UsageError, match="album/: none of the 1 scans"):
        find_stores(tmp_path, ["album/"])


@pytest.fixture(scope="module")
def coloured(command, moody, scans, tmp_path_factory):
    """Colours with the edges of tiles plain to see, in an album and beside it, and a scan too small for an edge."""
    folder, output = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    (folder / "albums").mkdir()
    image = cv2.imread(str(scans / "peasant-girls-1909.png"), cv2.IMREAD_GRAYSCALE)
    for name, part in (
        ("albums/rough", image[:500, :700]),
        ("albums/small", image[:90, :90]),
        ("x", image[:400, :400]),
    ):
        cv2.imwrite(str(folder / f"{name}.png"), part)
    words = ("--model", moody, "--tile", "128", "--stride", "128", "--window", "average", "--no-anchor")
    ran = command("run", folder, "-o", output, *words)
    assert ran.code == 0, ran.err
    return output


def sidecar(output, name):
    return json.loads((output / f"{name}.color.json").read_text())


def test_only_what_shows_its_tiles_is_made_again_and_the_change_is_told(command, coloured, moody):
    seams = {name: sidecar(coloured, name)["quality"]["seam"] for name in ("albums/rough", "albums/small", "x")}
    assert min(seams["albums/rough"], seams["x"]) > 1.05
    assert seams["albums/small"] is None
    words = ("--stride", "64", "--window", "hann", "--model", moody)
    ran = command("reprocess", coloured, "albums/", "--worse-than", "1.05", *words)
    assert ran.code == 0, ran.err
    assert ran.line("1 of 2 scans have a seam score above 1.05")
    assert "1 done" in ran.line("done,")
    assert sidecar(coloured, "albums/rough")["settings"]["stride_yx"] == [64, 64]
    assert {tuple(sidecar(coloured, name)["settings"]["stride_yx"]) for name in ("albums/small", "x")} == {(128, 128)}

    told = json.loads(command("diff", coloured / "albums/rough.zarr", "--json").out)
    record = json.loads(sorted((coloured / "runs").glob("*.json"))[-1].read_text())
    (outcome,) = record["scans"]
    assert record["kind"] == "reprocess"
    assert outcome["difference"]["before"] == told["old"]
    assert outcome["difference"]["after"] == told["new"]
    assert outcome["difference"]["mean"] == told["ciede2000"]["mean"] > 0.1
    assert outcome["difference"]["p95"] == told["ciede2000"]["p95"]
    mean = f"CIEDE2000 {told['ciede2000']['mean']:.2f} on average"
    assert ran.line("changed ", "albums/rough", mean)

    found = json.loads(command("status", coloured, "--json").out)
    assert [(run["kind"], run["done"]) for run in found["runs"]] == [("reprocess", 1), ("colorize", 3)]
    rough = [(v["version"], v["is_current"]) for v in found["versions"] if v["stem"] == "albums/rough"]
    assert rough == [(told["new"], True), (told["old"], False)]


def test_a_seam_score_chooses_by_the_current_result_only(coloured, command):
    stores = find_stores(coloured, [])
    assert worse_than(99, stores, coloured) == []
    assert [found.stem for found in worse_than(1, stores, coloured)] == ["albums/rough", "x"]
    ran = command("reprocess", coloured, "--worse-than", "bad", "--engine", "identity")
    assert (ran.code, len(ran.lines)) == (2, 1)
    assert "worse-than 'bad'" in ran.err
