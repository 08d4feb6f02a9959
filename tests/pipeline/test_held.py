"""Reading and writing take no more memory than the plan has them take: real pictures, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import rasterio.shutil
import tifffile

from pipeline.formats import FORMATS, held_bytes
from pipeline.planning.limits import KEPT_BYTES
from pipeline.planning.plan import _EXPORT_BYTES_PER_PX, _EXPORT_PX

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's count of the memory in use"
)
SIDE_PX, THREADS, MIB = 4800, 4, 2**20
_INGEST = """
import sys, pathlib, psutil
from pipeline.ingest import ingest, source_of
from pipeline.planning.plan import ingest_bytes
from pipeline.readers import open_scan
from tests.pipeline.writer_conformance import forget_peak, peak_kib
path = pathlib.Path(sys.argv[1])
with open_scan(path) as reader:
    planned = ingest_bytes(reader.info, 4, reader.decoder_bytes)
before = psutil.Process().memory_info().rss
forget_peak()
ingest(path, path.with_suffix(".zarr"), source_of(path), threads=4)
print(peak_kib() * 1024 - before, planned)
"""
_EXPORT = """
import sys, pathlib, psutil
from pipeline.export import export_picture, output_image
from pipeline.store import ScanStore
from tests.pipeline.writer_conformance import forget_peak, peak_kib
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
store = ScanStore.open(folder / "a.zarr")
before = psutil.Process().memory_info().rss
forget_peak()
export_picture(name, folder / f"result.{name}", output_image(store, store.version("v"), "", ""), 4)
print(peak_kib() * 1024 - before)
"""


def in_a_process_of_its_own(code: str, *words: object) -> list[int]:
    ran = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return [int(word) for word in ran.stdout.split()]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """One real scan, enlarged and in false colours, in many formats."""
    folder = tmp_path_factory.mktemp("pictures")
    scan = cv2.imread(str(Path(__file__).parents[1] / "scans" / "aerial-caliterra.jpg"), cv2.IMREAD_GRAYSCALE)
    gray = cv2.resize(scan, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    colour = np.stack([gray, gray[::-1], 255 - gray], axis=2)
    tifffile.imwrite(folder / "tiles.tif", colour, tile=(256, 256), photometric="rgb")
    tifffile.imwrite(folder / "one-strip.tif", colour, rowsperstrip=SIDE_PX, compression="zlib", photometric="rgb")
    for name, driver, options in (
        ("large-tiles.jp2", "JP2OpenJPEG", {"QUALITY": "10", "BLOCKXSIZE": "4096", "BLOCKYSIZE": "4096"}),
        ("a.png", "PNG", {"ZLEVEL": "1"}),
    ):
        rasterio.shutil.copy(folder / "tiles.tif", folder / name, driver=driver, **options)
    cv2.imwrite(str(folder / "progressive.jpg"), colour, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    (folder / "a.webp").write_bytes(imagecodecs.webp_encode(colour, level=80))
    (folder / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(colour, effort=1))
    return folder


@pytest.mark.e2e
@pytest.mark.parametrize(
    "name",
    ["tiles.tif", "one-strip.tif", "large-tiles.jp2", "a.png", "progressive.jpg", "a.webp", "a.jxl"],
)
def test_an_ingest_keeps_to_the_plan(pictures, name):
    taken, planned = in_a_process_of_its_own(_INGEST, pictures / name)
    assert taken < planned + KEPT_BYTES, f"{taken / MIB:.0f} MiB"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    from tests.pipeline.test_export import make_store

    folder = tmp_path_factory.mktemp("store")
    make_store(folder, (SIDE_PX, SIDE_PX), 3, "uint16")
    return folder


@pytest.mark.e2e
@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"png", "jpeg"}))
def test_an_export_keeps_to_the_plan(store, name):
    (taken,) = in_a_process_of_its_own(_EXPORT, store, name)
    planned = (THREADS + 1) * _EXPORT_PX * _EXPORT_BYTES_PER_PX + held_bytes([name])
    assert taken < planned + KEPT_BYTES, f"{taken / MIB:.0f} MiB"
