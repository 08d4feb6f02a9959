"""A pixel is nothing where all its channels say so; where one of them does, it is a pixel with an odd value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray

from pipeline.readers import open_scan

pytestmark = pytest.mark.filterwarnings("error")

EVERYTHING = slice(None), slice(None)
PLACE = {"crs": "EPSG:3857", "transform": rasterio.Affine(2, 0, 0, 0, -2, 0)}


def written(path: Path, picture: NDArray[Any], nodata: float | None) -> None:
    height, width, count = picture.shape
    profile = {"height": height, "width": width, "count": count, "dtype": picture.dtype, "nodata": nodata}
    driver = "GTiff" if path.suffix == ".tif" else "HFA"
    more = {"photometric": "rgb"} if driver == "GTiff" and count == 3 else {}
    with (
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        rasterio.open(path, "w", driver=driver, **PLACE, **profile, **more) as file,
    ):
        file.write(np.moveaxis(picture, 2, 0))


def read(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    with open_scan(path) as reader:
        assert reader.info.mask == "nodata"
        return reader.read(*EVERYTHING), reader.read_mask(*EVERYTHING)


@pytest.mark.parametrize("name", ["a.tif", "a.img"])
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("int16", 32767), ("int16", -32768), ("int32", -9999), ("float32", -9999), ("float32", np.nan)],
)
def test_one_channel_without_data_is_a_channel_at_its_end(tmp_path: Path, name: str, dtype: str, nodata: float) -> None:
    picture = np.random.default_rng(8).integers(-500, 3000, (40, 50, 3)).astype(dtype)
    picture[0, :2] = [[-500] * 3, [2999] * 3]
    picture[10, 10], picture[20, 20, 1] = nodata, nodata
    written(tmp_path / name, picture, nodata)
    samples, mask = read(tmp_path / name)
    here = np.ones((40, 50), bool)
    here[10, 10] = False
    np.testing.assert_array_equal(mask > 0, here)
    low, high = -500, 2999
    share = (np.clip(np.where(np.isnan(picture), low, picture).astype(float), low, high) - low) / (high - low)
    np.testing.assert_allclose(samples[here] / 65535, share[here], atol=2 / 65535)


def test_bytes_are_never_changed_for_one_channel(tmp_path: Path) -> None:
    picture = np.random.default_rng(8).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    picture[picture.max(axis=2) == 0] = 1
    picture[20, 20, 1] = 0
    picture[10, 10] = 0
    for name in ("a.tif", "a.img"):
        written(tmp_path / name, picture, 0)
        samples, mask = read(tmp_path / name)
        np.testing.assert_array_equal(samples, picture)
        assert mask[20, 20] == 255
        assert mask[10, 10] == 0


def test_no_number_in_one_channel_is_no_hole(tmp_path: Path) -> None:
    picture = np.random.default_rng(8).uniform(0, 1, (40, 50, 3)).astype(np.float32)
    picture[20, 20, 1] = np.nan
    picture[10, 10] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb")
    written(tmp_path / "a.img", picture, None)
    for name in ("a.tif", "a.img"):
        samples, mask = read(tmp_path / name)
        assert (mask == 0).sum() == 1, name
        assert mask[10, 10] == 0
        np.testing.assert_allclose(samples[20, 20, ::2] / 65535, picture[20, 20, ::2], atol=2 / 65535)


@pytest.mark.parametrize("name", ["a.tif", "a.img"])
def test_the_range_of_floats_is_found_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    picture = np.random.default_rng(8).uniform(-5, 90, (600, 500, 1)).astype(np.float32)
    written(path, picture, None)
    os.utime(path, (1e9, 1e9))
    begin = bytes_read()
    with open_scan(path) as reader:
        first = bytes_read() - begin
        before = reader.read(*EVERYTHING)
    begin = bytes_read()
    with open_scan(path) as reader:
        assert bytes_read() - begin < first - 0.6 * picture.nbytes
        np.testing.assert_array_equal(reader.read(*EVERYTHING), before)
    written(path, picture * 2, None)
    os.utime(path, (1e9, 1e9))
    with open_scan(path) as reader:
        assert "180" in reader.info.metadata["lightness"] or "179" in reader.info.metadata["lightness"]


def bytes_read() -> int:
    """By this process, from files, as the system counts them."""
    counts = Path("/proc/self/io")
    if not counts.exists():
        pytest.skip("needs Linux")
    return int(counts.read_text().split("rchar: ")[1].split()[0])
