"""The scans that the benchmarks make up."""

import subprocess
import sys

import numpy as np
import pytest
import tifffile

from tests.benchmarks.giga import PHOTOGRAPHS, TILE_PX, find_photographs, tiles, write_scan

SIDE = 1300  # two shelves at most, and no multiple of a tile


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("giga") / "scan.tif"
    write_scan(path, SIDE)
    return path


def test_it_is_a_tiled_gray_tiff_of_the_side_asked_for(scan):
    with tifffile.TiffFile(scan) as tiff:
        page = tiff.pages[0]
        assert (page.shape, page.dtype, page.photometric.name) == ((SIDE, SIDE), np.uint8, "MINISBLACK")
        assert page.tile == (TILE_PX, TILE_PX)
        assert len(page.databytecounts) == 9
        assert not tiff.is_bigtiff
    assert not list(scan.parent.glob("*.part"))


def test_the_same_seed_gives_the_same_file_and_another_does_not(scan, tmp_path):
    write_scan(tmp_path / "again.tif", SIDE)
    assert (tmp_path / "again.tif").read_bytes() == scan.read_bytes()
    write_scan(tmp_path / "other.tif", SIDE, seed=2)
    assert (tmp_path / "other.tif").read_bytes() != scan.read_bytes()


def test_the_file_holds_the_tiles(scan):
    samples = tifffile.imread(scan)
    made = list(tiles(SIDE, find_photographs(PHOTOGRAPHS), 1))
    assert [tile.shape for tile in made[:3]] == [(512, 512), (512, 512), (512, SIDE - 1024)]
    np.testing.assert_array_equal(samples[:512, 1024:], made[2])
    np.testing.assert_array_equal(samples[1024:, 512:1024], made[7])


def test_it_compresses_like_a_scan(scan):
    """Neither to nothing, as enlarged photographs without grain would, nor not at all, as noise would."""
    assert 0.35 < scan.stat().st_size / SIDE**2 < 0.75


def test_it_looks_like_photographs(scan):
    """Many gray levels, and neighbouring pixels that are alike: grain of a few levels on smooth shapes."""
    samples = tifffile.imread(scan).astype(np.int16)
    assert len(np.unique(samples)) > 150
    assert 25 < samples.std() < 100
    assert 1 < np.median(np.abs(np.diff(samples, axis=1))) < 6


def test_no_tile_comes_twice():
    made = list(tiles(2100, find_photographs(PHOTOGRAPHS), 1))
    assert len({tile.tobytes() for tile in made}) == len(made) == 25


def test_tiles_come_before_the_rest_is_made():
    """Of 1.6 gigapixels, which take a minute, the first tile needs one shelf."""
    first = tiles(40_000, find_photographs(PHOTOGRAPHS), 1)
    assert next(first).shape == (TILE_PX, TILE_PX)


def test_beyond_four_gigabytes_it_is_a_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.benchmarks.giga._CLASSIC_MAX_BYTES", 600**2 - 1)
    write_scan(tmp_path / "big.tif", 600)
    with tifffile.TiffFile(tmp_path / "big.tif") as tiff:
        assert tiff.is_bigtiff


def _peak_bytes(side, path):
    """Peak memory of a process that makes a scan of ``side``."""
    code = (
        "import resource, sys; from pathlib import Path; from tests.benchmarks.giga import write_scan;"
        "write_scan(Path(sys.argv[2]), int(sys.argv[1]));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(side), str(path)], capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.e2e
def test_memory_does_not_grow_with_the_area(tmp_path):
    small, large = (_peak_bytes(side, tmp_path / f"{side}.tif") for side in (2048, 8192))
    assert large - small < 8192**2  # a shelf and a row of tiles are wider, but the picture itself is never held


def test_a_folder_without_photographs_is_said(tmp_path):
    with pytest.raises(SystemExit, match="no photographs"):
        find_photographs(tmp_path)
