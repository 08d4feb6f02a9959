"""What a search through folders takes, and what it says of the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.inputs import NO_ENDING, NoScansError, find_scans, not_taken_line
from pipeline.errors import UsageError


def test_what_is_no_scan_by_its_ending_is_counted_and_ours_is_not(tmp_path, command):
    """The output lies in the folder of the scans, as many people have it."""
    (tmp_path / "box").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "box" / "b.PNG"):
        cv2.imwrite(str(path), np.zeros((40, 50), np.uint8))
    for name in ("a.xml", "box/b.xml", "box/README", "box/c.heic", "box/b.pgw", ".DS_Store"):
        (tmp_path / name).write_text("?")
    expected = {".xml": 2, ".heic": 1, NO_ENDING: 1}
    assert find_scans([str(tmp_path)]).aside.not_taken == expected
    ran = command("run", tmp_path, "-o", tmp_path / "out", "--engine", "identity", "--format", "tiff,iiif,omezarr")
    assert ran.code == 0, ran.err
    found = find_scans([str(tmp_path)])
    assert sorted(scan.stem for scan in found.scans) == ["a", "box/b"]
    assert found.aside.not_taken == expected
    assert find_scans([str(tmp_path / "*.xml"), str(tmp_path / "box" / "README")]).aside.not_taken == {}


def test_a_folder_without_scans_is_said(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"?")
    with pytest.raises(NoScansError, match="no scans in this folder"):
        find_scans([str(tmp_path)])


@pytest.mark.parametrize(
    ("not_taken", "line"),
    [
        ({}, ""),
        ({".heic": 1}, "1 file not taken for scans by their endings: 1 .heic; name one to have it tried"),
        (
            {f".{letter}": 9 for letter in "abcdefgh"},
            "72 files not taken for scans by their endings: 9 .a, 9 .b, 9 .c, 9 .d, 9 .e, 9 .f, 2 endings more; "
            "name one to have it tried",
        ),
    ],
)
def test_the_line_is_short(not_taken, line):
    assert not_taken_line(not_taken) == line


def test_an_input_without_scans_does_not_stop_the_others(tmp_path, command):
    (tmp_path / "full").mkdir()
    (tmp_path / "inbox").mkdir()
    cv2.imwrite(str(tmp_path / "full" / "a.png"), np.zeros((40, 50), np.uint8))
    inputs = tmp_path / "inbox", tmp_path / "full", tmp_path / "old" / "*.tif"
    ran = command("run", *inputs, "-o", tmp_path / "out", "--engine", "identity")
    assert ran.code == 0, ran.err
    assert ran.line("1 done")
    assert ran.line("inbox", "no scans in this folder")
    assert ran.line("*.tif", "no file matches")
    (record,) = (tmp_path / "out" / "runs").glob("*.json")
    assert [line.split(": ")[1][:8] for line in json.loads(record.read_text())["in_vain"]] == ["no scans", "no file "]


def test_a_folder_that_cannot_be_listed_is_said_and_the_others_are_searched(tmp_path, monkeypatch):
    for name in ("closed", "lost+found", "open"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), np.zeros((40, 50), np.uint8))
    listing = os.scandir

    def scandir(path):
        if Path(path).name in ("closed", "lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_scans([str(tmp_path)])
    assert [scan.stem for scan in found.scans] == ["open/a"]
    (line,) = found.aside.in_vain
    assert line.startswith(f"{tmp_path / 'closed'}: cannot be listed (Permission denied)")
    with pytest.raises(UsageError, match="cannot be listed"):
        find_scans([str(tmp_path / "closed")])
