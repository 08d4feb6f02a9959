"""No scan takes the name, and so the place, of another's results."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.bookkeeping import ScanFiles
from flows.inputs import ScanFile
from flows.naming import Names
from pipeline.errors import UsageError


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
