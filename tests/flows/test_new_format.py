"""A new output format is one file and its line: everything from the command line to the sheet takes it from there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
MODULE = '''
"""Portable pixmap (Netpbm): a header and samples."""

from pathlib import Path

import numpy as np

from pipeline.formats._format import Format
from pipeline.formats._staging import folder_beside, left_out, place_file, window
from pipeline.formats.picture import OutputImage, WriteReport

BLOCKS = ("alpha", "nodata", "exif", "iptc", "xmp", "photoshop", "tags", "resolution", "orientation", "place", "gcps")


class Ppm(Format):
    ENDING = ".color.ppm"

    def write(self, path: Path, picture: OutputImage, threads: int) -> WriteReport:
        height, width = picture.shape_yx
        with folder_beside(path) as folder:
            made = folder / "made.part"
            with made.open("wb") as file:
                file.write(f"P6 {width} {height} {np.iinfo(picture.dtype).max}\\n".encode())
                for y in range(0, height, 256):
                    band = window(picture, slice(y, min(y + 256, height)), slice(0, width))[..., :3]
                    file.write(band.astype(picture.dtype.newbyteorder(">")).tobytes())
            lost = left_out(picture, dict.fromkeys((*BLOCKS, "rpcs"), "PPM has no place for it"))
            if "xmp" in lost:
                lost["Digital Source Type"] = lost["xmp"]
            return WriteReport((picture.shape_yx,), place_file(made, path), lost)


FORMAT: Format = Ppm()
'''
AFTER = '    "png": ".color.png",\n'


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The project, by links, with one file and one line more."""
    folder = tmp_path_factory.mktemp("checkout")
    formats = folder / "pipeline" / "formats"
    formats.mkdir(parents=True)
    for source, target in (
        (ROOT, folder),
        (ROOT / "pipeline", folder / "pipeline"),
        (ROOT / "pipeline/formats", formats),
    ):
        for each in source.iterdir():
            if not (target / each.name).exists() and each.name not in (".git", "__pycache__"):
                (target / each.name).symlink_to(each)
    (formats / "ppm.py").write_text(MODULE)
    (endings := folder / "pipeline" / "endings.py").unlink()
    endings.write_text((ROOT / "pipeline/endings.py").read_text().replace(AFTER, f'{AFTER}    "ppm": ".color.ppm",\n'))
    return folder


@pytest.mark.e2e
def test_it_is_held_to_what_every_format_promises(checkout):
    words = ("-p", "no:cacheprovider", "-k", "ppm or share", "tests/pipeline/test_formats_conform.py")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert "passed" in ran.stdout


def test_a_scan_is_written_in_it_verified_and_shown(command_in, tmp_path):
    scan = tmp_path / "scans" / "a.png"
    scan.parent.mkdir()
    cv2.imwrite(str(scan), np.tile(np.arange(256, dtype=np.uint8), (300, 2)))
    out = tmp_path / "out"
    words = ("run", scan, "-o", out, "--engine", "identity", "--tile", "256", "--format", "ppm")
    ran = command_in(*words)
    assert ran.returncode == 0, ran.stderr
    picture = out / "a.color.ppm"
    assert cv2.imread(str(picture)).shape == (300, 512, 3)
    (record,) = json.loads((out / "a.color.json").read_text())["pictures"].items()
    assert record[0] == "ppm"

    (found,) = json.loads(command_in("verify", out, "--json").stdout)["certificates"]
    assert found["passes"], found
    assert found["not_compared"] == []
    picture.write_bytes(picture.read_bytes()[:-3] + b"\0\0\0")
    assert command_in("verify", out).returncode != 0

    assert (out / "thumbs" / "a.after.jpg").exists()
    ran = command_in("run", out, scan.parent, "-o", out, "--engine", "identity", "--tile", "256", "--format", "ppm")
    assert sorted(each.name for each in out.glob("*.color.*")) == ["a.color.json", "a.color.ppm"]


@pytest.fixture
def command_in(checkout, shared_server):
    """The command line of ``checkout``."""

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *map(str, words)],
            cwd=checkout,
            env={**shared_server.environment, "PYTHONPATH": str(checkout)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    return run
