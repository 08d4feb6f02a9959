"""GDAL is used the same way by readers and writers: no network, no leak of warning filters, names of any bytes."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

from pipeline.errors import ScanUnreadableError
from pipeline.formats._gdal import gdal as gdal_of_writers
from pipeline.formats._gdal import open_dataset
from pipeline.formats._geo_tags import geo_tags
from pipeline.metadata.model import Georeference
from pipeline.readers import open_scan, page_count
from pipeline.readers._gdal import Raster
from pipeline.support import gdal
from tests.patience import PATIENCE_SECONDS
from tests.pipeline.test_readers_drives import gdal_tiff, noise
from tests.pipeline.test_readers_image import soft

pytestmark = pytest.mark.filterwarnings("error", "ignore:'mode' parameter:DeprecationWarning")

EVERYTHING = slice(None), slice(None)
WEB_MERCATOR = rasterio.crs.CRS.from_epsg(3857).to_wkt()


def test_no_context_reaches_the_network(tmp_path: Path) -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def attempt(name: str) -> None:
            with pytest.raises(rasterio.errors.RasterioIOError):
                rasterio.open(f"/vsicurl/http://127.0.0.1:{server.server_port}/{name}.tif")

        with gdal.environment():
            attempt("fenced")
        with gdal_of_writers(tmp_path, 1):
            attempt("fenced")
        assert not asked
        attempt("open")
        assert any("open" in path for path in asked)
        server.shutdown()


@pytest.mark.parametrize("what", ["reader", "TIFF reader", "writer", "tags"])
def test_filters_of_warnings_are_exchanged_by_one_thread_at_a_time(tmp_path: Path, what: str) -> None:
    Image.fromarray(soft()).save(tmp_path / "a.png")
    gdal_tiff(tmp_path / "a.tif", noise())
    acts: dict[str, Callable[[], Any]] = {
        "reader": lambda: open_scan(tmp_path / "a.png").close(),
        "TIFF reader": lambda: open_scan(tmp_path / "a.tif").close(),
        "writer": lambda: open_dataset(tmp_path / "a.tif").close(),
        "tags": lambda: geo_tags(Georeference(crs=WEB_MERCATOR), {}),
    }
    before = list(warnings.filters)
    other = threading.Thread(target=acts[what])
    with gdal.quiet():
        other.start()
        other.join(0.3)
        assert other.is_alive()
    other.join(PATIENCE_SECONDS)
    assert not other.is_alive()
    assert warnings.filters == before


NAMES = ("a.png", "a.jpg", "a.tif", "gdal.tif", "placed.tif", "a.jp2", "a.j2k", "a.webp", "a.gif", "a.bmp", "a.ppm")
NAMES += ("a.sgi", "a.img", "a.ntf", "a.jxl", "float.img")


def made(path: Path) -> None:
    picture = soft()
    if path.name == "gdal.tif":
        gdal_tiff(path, noise())
    elif path.suffix == ".jxl":
        path.write_bytes(imagecodecs.jpegxl_encode(picture, lossless=True))
    elif path.name in ("placed.tif", "a.img", "a.ntf", "float.img"):
        driver = {".tif": "GTiff", ".img": "HFA", ".ntf": "NITF"}[path.suffix]
        stored = picture[:, :, 0].astype(np.float32 if path.stem == "float" else np.uint8)
        profile = {"height": 90, "width": 130, "count": 1, "dtype": stored.dtype, "crs": WEB_MERCATOR}
        profile["transform"] = rasterio.Affine(2, 0, 7, 0, -2, 9)
        if driver == "NITF":
            profile = {name: profile[name] for name in ("height", "width", "count", "dtype")}
        with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO"):
            warnings.simplefilter("ignore")
            with rasterio.open(path, "w", driver=driver, **profile) as file:
                file.write(stored, 1)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, picture, photometric="rgb")
    else:
        stream = io.BytesIO()
        kind = {".jpg": "jpeg", ".j2k": "jpeg2000", ".jp2": "jpeg2000", ".pgm": "ppm"}.get(path.suffix, path.suffix[1:])
        Image.fromarray(picture[:, :, 0] if path.suffix == ".pgm" else picture).save(
            stream, kind, no_jp2=path.suffix == ".j2k"
        )
        path.write_bytes(stream.getvalue())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_utf_8_is_a_name(tmp_path: Path, name: str) -> None:
    plain = tmp_path / name
    made(plain)
    stem = os.fsdecode(b"caf\xe9 \xff")
    odd = tmp_path / stem / f"{stem}{plain.suffix}"
    odd.parent.mkdir()
    odd.write_bytes(plain.read_bytes())
    descriptors = open_files(tmp_path)
    assert page_count(odd) == 1
    with open_scan(plain) as one, open_scan(odd) as other:
        assert one.info == other.info
        assert one.embedded == other.embedded
        np.testing.assert_array_equal(one.read(*EVERYTHING), other.read(*EVERYTHING))
        if one.info.mask:
            np.testing.assert_array_equal(one.read_mask(*EVERYTHING), other.read_mask(*EVERYTHING))
    assert open_files(tmp_path) == descriptors
    odd.write_bytes(plain.read_bytes()[: plain.stat().st_size // 3])
    with pytest.raises(ScanUnreadableError) as caught, open_scan(odd) as other:
        other.read(*EVERYTHING)
    assert "/proc" not in str(caught.value)
    assert open_files(tmp_path) == descriptors


NEIGHBOURS = (
    "wld",
    "{}w",
    "bpw",
    "gfw",
    "igw",
    "pgw",
    "jgw",
    "tfw",
    "j2w",
    "nfw",
    "wpw",
    "prj",
    "aux",
    "rrd",
    "ige",
    "hdr",
)
NEIGHBOURS += ("txt", "tab", "rpb", "imd", "geo", "ovr", "msk", "xml")
BEHIND = (".aux.xml", ".msk", ".ovr", ".aux", ".rrd", ".wld", "_rpc.txt")


def neighbours(path: Path) -> list[Path]:
    """What some driver of GDAL's looks for beside a file, in small letters and capitals."""
    endings = [ending.format(path.suffix[1:]) for ending in NEIGHBOURS]
    names = [f"{path.stem}.{each}" for ending in endings for each in (ending, ending.upper())]
    return [path.parent / name for name in dict.fromkeys((*names, *(path.name + ending for ending in BEHIND)))]


READ = """
import sys
from pipeline.readers import open_scan
from pathlib import Path
for name in sys.argv[1:]:
    print(name, flush=True)
    with open_scan(Path(name)) as reader:
        reader.read(slice(None), slice(None))
        print(reader.embedded.place and reader.embedded.place.transform, flush=True)
"""
WITHOUT_PROC = "from pipeline.support import gdal; from pathlib import Path; gdal._OPEN_FILES = Path('/proc/none')"


@pytest.mark.e2e
@pytest.mark.parametrize("first", ["", WITHOUT_PROC], ids=["by number", "as a part"])
def test_nobody_waits_for_what_lies_beside_a_scan(tmp_path: Path, first: str) -> None:
    """A pipe that nobody writes to stops whoever opens it."""
    names = [name for name in (*NAMES, "a.pgm") if not (first and name == "gdal.tif")]
    paths = [tmp_path / name / name for name in names]
    for path in paths:
        path.parent.mkdir()
        made(path)

    def places() -> str:
        run = [sys.executable, "-c", first + READ, *map(str, paths)]
        return subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True).stdout

    alone = places()
    for path in paths:
        for each in neighbours(path):
            os.mkfifo(each)
    assert places() == alone


@pytest.mark.parametrize("name", [*NAMES, "a.pgm"])
def test_a_world_file_that_is_a_link_out_of_the_folder_is_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "s" / name
    path.parent.mkdir()
    made(path)
    with open_scan(path) as reader:
        own, dropped = reader.embedded, reader.info.metadata.get("dropped", ())
    (tmp_path / "else.txt").write_text("3\n0\n0\n-3\n77\n88\n")
    links = [each for each in neighbours(path) if each.suffix.lower().endswith(("w", "wld"))]
    for each in links:
        each.symlink_to(tmp_path / "else.txt")
    with open_scan(path) as reader:
        assert reader.embedded == own
        said = set(reader.info.metadata.get("dropped", ())).difference(dropped)
    assert all(each.endswith("(a link out of its folder)") for each in said)


def test_gdal_is_asked_for_no_neighbour_and_reads_on_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    made(path)
    (tmp_path / "a.wld").write_text("3\n0\n0\n-3\n77\n88\n")
    with gdal.Opened(path, "BMP", alone=True) as dataset:
        assert dataset.transform.is_identity
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    descriptors = open_files(tmp_path)
    raster = Raster(path, "BMP")
    bands, top, bottom = (1, 2, 3), range(10), range(70, 90)  # its rows go upwards: the upper ones are cut off
    kept = raster.read(bands, bottom, range(130))
    for _ in range(3):
        with pytest.raises(Exception, match="previous exception"):
            raster.read(bands, top, range(130))
        np.testing.assert_array_equal(raster.read(bands, bottom, range(130)), kept)
    raster.close()
    assert open_files(tmp_path) == descriptors
    with pytest.raises(ScanUnreadableError, match=r"a\.bmp") as caught:
        open_scan(path).read(*EVERYTHING)
    assert "/proc" not in str(caught.value)


def open_files(folder: Path) -> list[str]:
    """What this process has open in ``folder``, and the folder itself: other threads open what they like elsewhere."""
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed since
            targets.append(str(link.readlink()))
    return sorted(target for target in targets if target.startswith(str(folder)))
