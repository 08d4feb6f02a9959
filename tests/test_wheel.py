"""What people install is the wheel, not this folder: it has every file of the packages, and works far from here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.patience import PATIENCE_SECONDS

HERE = Path(__file__).parents[1]
PACKAGES = ("pipeline", "engines", "flows", "training")
# setuptools' own backend, in the surroundings of the tests: nothing is downloaded.
_BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because building leaves folders behind."""
    pytest.importorskip("setuptools", minversion="77")
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(HERE / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(HERE / name, source)
    words = [sys.executable, "-W", "ignore", "-c", _BUILD, str(made)]
    subprocess.run(words, cwd=source, check=True, capture_output=True, timeout=PATIENCE_SECONDS)
    (found,) = made.glob("*.whl")
    return found


def test_it_has_every_file_of_the_packages(wheel):
    there = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(HERE).as_posix()
        for name in PACKAGES
        for path in (HERE / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
    }
    assert not wanted - there
    assert not [name for name in there if name.startswith(("tests/", "deploy/", "docs/"))]


def test_it_colours_a_scan_far_from_this_folder(wheel, tmp_path):
    site, away = tmp_path / "site", tmp_path / "away"
    zipfile.ZipFile(wheel).extractall(site)
    away.mkdir()
    cv2.imwrite(str(away / "scan.png"), np.random.default_rng(0).integers(0, 256, (60, 70), np.uint8))
    environment = {**os.environ, "PYTHONPATH": str(site), "PREFECT_HOME": str(tmp_path / "prefect")}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "flows.cli", *words]
        ran = subprocess.run(
            command, cwd=away, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    assert "reprocess" in run("--help")
    assert "default" in run("models")
    run("run", "scan.png", "-o", "colour", "--engine", "identity")
    assert (away / "colour" / "scan.color.tif").is_file()
    code = f"import flows, pathlib; assert pathlib.Path(flows.__file__).is_relative_to({str(site)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=away, env=environment, check=True)
