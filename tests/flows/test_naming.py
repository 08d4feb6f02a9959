"""No scan takes the name, and so the place, of another's results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.catalogue.recorder import ScanFiles
from flows.inputs import ScanFile
from flows.run.output_names import Names, check_lengths
from pipeline.errors import UsageError
from pipeline.formats import FORMATS
from pipeline.results.versions import ResultPaths
from pipeline.support.files import file_sha256
from pipeline.support.names import folded


def draw(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (60, 80), np.uint8))
    return path


def results(output: Path) -> dict[str, str]:
    """Each scan's name and the file that its current result is of."""
    return {
        path.name.removesuffix(".color.json"): Path(json.loads(path.read_text())["source"]["path"]).name
        for path in output.glob("*.color.json")
    }


def test_a_master_beside_its_copy_is_a_scan_of_its_own_night_after_night(command, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    words = ("run", folder, "-o", output, "--engine", "identity")
    draw(folder / "plate.jpg", 1)
    assert command(*words).code == 0
    draw(folder / "plate.tif", 2)
    second = command(*words)
    assert second.code == 0, second.err
    assert "1 done, 1 skipped" in second.line("done,")
    assert results(output) == {"plate": "plate.jpg", "plate.tif": "plate.tif"}
    assert "0 done, 2 skipped" in command(*words).line("done,")
    assert command("verify", output).code == 0
    both = command("run", folder, "-o", tmp_path / "anew", "--engine", "identity")
    assert both.code == 0, both.err
    assert results(tmp_path / "anew") == {"plate": "plate.tif", "plate.jpg": "plate.jpg"}


def test_another_boxs_scan_of_one_name_is_refused_and_a_moved_one_is_known(command, tmp_path):
    output = tmp_path / "out"
    draw(tmp_path / "box1" / "001.png", 1)
    draw(tmp_path / "box2" / "001.png", 2)
    words = ("-o", output, "--engine", "identity")
    assert command("run", tmp_path / "box1", *words).code == 0
    before = {path: path.read_bytes() for path in output.glob("001.*") if path.is_file()}
    other = command("run", tmp_path / "box2", "--force", *words)
    assert other.code == 1
    assert str(tmp_path / "box1" / "001.png") in other.line("failed", "would overwrite the result of")
    assert before == {path: path.read_bytes() for path in output.glob("001.*") if path.is_file()}
    (tmp_path / "box1").rename(tmp_path / "cellar")
    moved = command("run", tmp_path / "cellar", *words)
    assert moved.code == 0, moved.err
    assert "0 done, 1 skipped" in moved.line("done,")


def test_pages_keep_their_numbers_last(tmp_path):
    names = Names(tmp_path / "out", ScanFiles())
    scans = [
        ScanFile(tmp_path / f"plate.{ending}", f"plate.p{page:03}", page)
        for ending in ("tif", "gif")
        for page in (1, 2)
    ]
    stems = [names.claim(scan).stem for scan in scans]
    assert stems == ["plate.p001", "plate.p002", "plate.gif.p001", "plate.gif.p002"]


def test_two_folders_with_one_name_each_are_told_apart_by_nothing(tmp_path):
    names = Names(tmp_path / "out", ScanFiles())
    names.claim(ScanFile(tmp_path / "a" / "001.png", "001"))
    with pytest.raises(UsageError, match="would overwrite the result of"):
        names.claim(ScanFile(tmp_path / "b" / "001.png", "001"))


def claimed(tmp_path, *names: str) -> list[str]:
    """The stems that new scans of these names get, or the error of one that gets none, in order."""
    names_of, stems = Names(tmp_path / "out", ScanFiles()), []
    for name in names:
        try:
            stems.append(names_of.claim(ScanFile(tmp_path / "in" / name, name.rpartition(".")[0])).stem)
        except UsageError as error:
            stems.append(str(error))
    return stems


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Plate.tif", "plate.tif"),
        ("\u00e9.tif", "e\u0301.tif"),
        ("STRASSE.tif", "straße.tif"),
        ("Box/a.tif", "box/A.tif"),
        ("a.tif", "a .tif"),
        ("\uff21.tif", "a.tif"),
        ("ΣΑΣ.tif", "σας.tif"),
    ],
)
def test_names_that_some_drive_takes_for_one_are_never_shared(tmp_path, first, second):
    kept, refused = claimed(tmp_path, first, second)
    assert kept == first.removesuffix(".tif")
    assert f"would overwrite the result of {tmp_path / 'in' / first}" in refused
    assert "rename one of them" in refused


def test_where_the_endings_differ_they_come_in(tmp_path):
    assert claimed(tmp_path, "Plate.tif", "plate.TIF", "plate.jpg") == ["Plate", "plate.TIF", "plate.jpg"]
    *kept, refused = claimed(tmp_path, "Plate.tif", "plate.TIF", "PLATE.tiff", "pLATE.Tif")
    assert kept == ["Plate", "plate.TIF", "PLATE.tiff"]
    assert "would overwrite" in refused


def told_of(output: Path, stem: str, path: Path, sha256: str = "0") -> None:
    sidecar = output / f"{stem}.color.json"
    sidecar.parent.mkdir(parents=True, exist_ok=True)
    sidecar.write_text(json.dumps({"source": {"path": str(path), "sha256": sha256}}))


def test_results_that_are_there_count_however_their_name_is_written(tmp_path):
    told_of(tmp_path / "out", "Box/Plate", tmp_path / "elsewhere" / "Plate.tif")
    (refused,) = claimed(tmp_path, "box/plate.tif")
    assert "capitals" in refused
    told_of(tmp_path / "out", "Both", tmp_path / "in" / "Both.tif")
    told_of(tmp_path / "out", "both", tmp_path / "in" / "both.tif")
    assert claimed(tmp_path, "Both.tif", "both.tif") == ["Both", "both"]  # made before, and not made anew


def test_a_scan_that_was_renamed_in_capitals_only_keeps_its_results(tmp_path):
    scan = draw(tmp_path / "in" / "plate.png", 1)
    told_of(tmp_path / "out", "Plate", tmp_path / "in" / "Plate.png", file_sha256(scan))
    assert Names(tmp_path / "out", ScanFiles()).claim(ScanFile(scan, "plate")).stem == "Plate"


def test_two_scans_of_the_same_bytes_never_share_one_name(tmp_path):
    scan = draw(tmp_path / "in" / "plate.png", 1)
    copy = draw(tmp_path / "copy" / "plate.png", 1)
    told_of(tmp_path / "out", "plate", scan, file_sha256(scan))
    names = Names(tmp_path / "out", ScanFiles())
    assert names.claim(ScanFile(copy, "plate")).stem == "plate"
    with pytest.raises(UsageError, match="would overwrite"):
        names.claim(ScanFile(scan, "plate"))


def test_the_name_of_another_scans_version_is_not_taken(tmp_path):
    (stem,) = claimed(tmp_path, "plate.256-128-hann-default-1f2e3d4c.tif")
    assert stem.startswith("plate.256-128-hann-default-1f2e3d4c~")


@pytest.mark.parametrize("name", [200 * "b", 70 * "漢", 60 * "😀", 174 * "b"])
def test_long_names_are_cut_and_stay_apart(tmp_path, name):
    stems = claimed(tmp_path, f"{name}1.tif", f"{name}2.tif", f"{name}1.jpg")
    assert len({folded(stem) for stem in stems}) == 3
    for stem in stems:
        assert stem[:20] == name[:20]
        paths = ResultPaths.of(tmp_path / "out", stem)
        # A stride and a tile of their own, and a model with a name.
        check_lengths(ScanFile(Path("a"), stem), paths, "2048x4096-1024x2048-gaussian-default-1f2e3d4c", FORMATS)
    assert claimed(tmp_path, f"{name}1.tif") == stems[:1]


def test_a_long_name_that_has_results_keeps_it(tmp_path):
    name = 180 * "b"
    told_of(tmp_path / "out", name, tmp_path / "in" / f"{name}.tif")
    assert claimed(tmp_path, f"{name}.tif") == [name]


def test_names_and_paths_that_do_not_fit_are_refused_before_work(tmp_path):
    scan = ScanFile(tmp_path / "a.tif", "a")
    with pytest.raises(UsageError, match=r"would have 2\d\d bytes, and the drive of .* takes 255, so nothing"):
        check_lengths(scan, ResultPaths.of(tmp_path, 220 * "b"), "256-128-hann-default-1f2e3d4c", ["tiff"])
    deep = tmp_path.joinpath(*[200 * "d"] * 19)
    with pytest.raises(UsageError, match=r"this system takes 4096"):
        check_lengths(scan, ResultPaths.of(deep, "a"), "256-128-hann-default-1f2e3d4c", ["tiff"])


def test_the_folder_above_two_of_one_name_is_offered(tmp_path):
    names = Names(tmp_path / "out", ScanFiles())
    names.claim(ScanFile(tmp_path / "a" / "001.png", "001"))
    with pytest.raises(UsageError, match=f"give {re.escape(str(tmp_path))}, which keeps the folders"):
        names.claim(ScanFile(tmp_path / "b" / "001.png", "001"))
