"""What a killed export leaves beside is found again, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.formats import FORMATS
from pipeline.results.run_spec import RunSpec
from pipeline.results.version_names import leftovers
from pipeline.results.versions import ResultPaths
from pipeline.support.files import remove

SPEC = RunSpec((512, 256), (64, 64), "hann", "identity", "1", "fp32", 1, "größe.x", "ab", 1.0)
KILLED = """
import os, signal, sys, pathlib
import numpy as np
from pipeline.formats import OutputImage, write_picture

def read_window(rows, columns):
    if rows.start:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.zeros((rows.stop - rows.start, columns.stop - columns.start, 3), np.uint8)

write_picture(sys.argv[1], pathlib.Path(sys.argv[2]), OutputImage((1100, 300), np.dtype("uint8"), read_window), 1)
"""


@pytest.mark.e2e
@pytest.mark.parametrize("name", FORMATS)
def test_what_a_killed_export_leaves_is_found(tmp_path, name):
    path = ResultPaths.of(tmp_path, "NAME").of_version(SPEC.version).picture(name)
    ended = subprocess.run([sys.executable, "-c", KILLED, name, str(path)], cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    assert leftovers(tmp_path, "NAME") == left
    assert leftovers(tmp_path, "NAM") == leftovers(tmp_path, "AME") == []
    remove(left[0])
    assert leftovers(tmp_path, "NAME") == []


def test_only_ours_and_only_of_this_scan_are_found(tmp_path):
    ours = [f"a[b].{version}color{end}" for version in ("", f"{SPEC.version}.") for end in (".tif.part", ".iiif.part")]
    others = (
        "a[b].color.tif", f"a[b].{SPEC.version}.color.tif", "a[b].part", "a[b].tif.part", "a[b].final.color.tif.part",
        "ab.color.tif.part", "a[b].p001.color.tif.part", f"a[b].p001.{SPEC.version}.color.tif.part",
        "a[b].color.json.part", "x a[b].color.tif.part", f"a[b].{SPEC.version}color.tif.part",
    )  # fmt: skip
    for name in (*ours, *others):
        (tmp_path / name).write_bytes(b"")
    assert leftovers(tmp_path, "a[b]") == sorted(tmp_path / name for name in ours)


def test_names_that_are_not_utf_8_are_found(tmp_path):
    stem = os.fsdecode(b"caf\xe9")
    try:
        (tmp_path / f"{stem}.color.jp2.part").mkdir()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    assert leftovers(tmp_path, stem) == [tmp_path / f"{stem}.color.jp2.part"]


def test_of_a_folder_that_is_not_there_nothing_is_found(tmp_path):
    assert leftovers(tmp_path / "none", "NAME") == []
