"""A result with a fault does not pass, in any format, however consistent its sizes and hashes are."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest

from pipeline.export import output_image
from pipeline.formats import ENDINGS, FORMATS, OutputImage, level_problems, write_picture
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.results.expected_picture import ExpectedPicture
from pipeline.results.read_back import carried_by_result, missing_in
from pipeline.results.sidecar import PictureRecord
from pipeline.results.verify import _certificate
from pipeline.store import BlockTiming, ScanStore, Source
from pipeline.support.files import file_sha256, size_bytes, tree_sha256
from pipeline.types import Roi, ScanInfo
from tests.pipeline.plain import coloured
from tests.pipeline.writer_conformance import EXIF, IPTC, PHOTOSHOP, PLACE, TAGS, XMP, smooth

SHAPE_YX = (1100, 700)
LEVELLED = ("tiff", "cog", "jp2", "omezarr", "iiif")
SIXTEEN = ("tiff", "cog", "jp2", "omezarr", "png")
SCAN = EmbeddedMetadata(exif=EXIF, iptc=IPTC, xmp=XMP, photoshop=PHOTOSHOP, tags=TAGS, place=PLACE)
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@dataclass(frozen=True)
class Result:
    """A store, the picture of it, and a folder to write into."""

    store: ScanStore
    picture: OutputImage


def make_result(folder, dtype="uint8", orientation=6, **fields):
    """Of a smooth scan with all metadata there is, in soft colours."""
    samples = smooth(SHAPE_YX, dtype)[..., 0]
    metadata = {"resolution": (300.0, 300.0, "inch"), "orientation": orientation}
    info = ScanInfo(SHAPE_YX, 1, dtype, metadata, **fields)
    store = ScanStore.create(folder / "a.zarr", info, Source("a.tif", 1, "0"), SCAN)
    store.write_scan(Roi(0, *SHAPE_YX[:1], 0, SHAPE_YX[1]), samples)
    version = store.create_version("v", {}, 2048, 1.0, "2000-01-01")
    chroma = np.stack([smooth(SHAPE_YX)[..., n] / 8 - 12 for n in range(2)]).astype(np.float32)
    version.write((0, 0), coloured(chroma), version.attempt, BlockTiming(1, 0.0))
    version.finish()
    embedded, text, _ = carried_by_result(SCAN, "software 1, model m", "Colour added by an algorithm", "a.tif")
    return Result(store, output_image(store, version, "software 1", text, embedded))


@pytest.fixture(scope="module", params=["uint8", "uint16"])
def result(request, tmp_path_factory):
    return make_result(tmp_path_factory.mktemp("result"), request.param)


@pytest.fixture(scope="module")
def gray8(tmp_path_factory):
    return make_result(tmp_path_factory.mktemp("gray8"))


def told_of(result, name, path, written, **other):
    """What the sidecar of a good picture says, with the size and hash of whatever lies at ``path``."""
    not_carried = dict(written.not_carried) | missing_in(name, path, result.picture, written.not_carried)
    record = PictureRecord(
        file=path.name,
        bytes=size_bytes(path),
        sha256=tree_sha256(path),
        levels=len(written.levels_yx),
        not_carried=not_carried,
        carries_metadata=True,
    )
    values = {
        "picture": path,
        "format": name,
        "shape_yx": SHAPE_YX,
        "dtype": "uint8" if "depth" in not_carried else str(result.store.info.dtype),
        "version": "v",
        "store": result.store.path,
        "store_sha256": {each.name: file_sha256(each) for each in (result.store.path / "carried.json",)},
        "records_sha256": result.store.version("v").records_sha256(),
        "source": path,
        "source_sha256": "0",
        "metadata": result.store.info.metadata,
        "page": 1,
        "holes": 0,
        "record": record,
    }
    return ExpectedPicture(**values | other)


def check(result, name, folder, faulty=None):
    """The certificate of a picture that is ``faulty`` where a good one was told."""
    path = folder / f"a{ENDINGS[name]}"
    told = told_of(result, name, path, write_picture(name, path, result.picture, 2))
    if faulty is not None:
        write_picture(name, path, faulty, 2)
        told = replace(told, record=replace(told.record, bytes=size_bytes(path), sha256=tree_sha256(path)))
    return _certificate(told, (), "")


def windowed(picture, change):
    """``picture`` with other samples."""
    return replace(picture, read_window=lambda rows, columns: change(picture.read_window(rows, columns)))


@pytest.mark.parametrize("name", FORMATS)
def test_a_good_one_passes(result, name, tmp_path):
    found = check(result, name, tmp_path)
    assert found.problems == ()
    assert found.not_compared == ()
    assert 0 < found.lightness_mean < found.lightness_max < found.bound


@pytest.mark.parametrize("name", FORMATS)
def test_another_size(gray8, name, tmp_path):
    picture = replace(gray8.picture, shape_yx=(SHAPE_YX[0] - 1, SHAPE_YX[1]))
    found = check(gray8, name, tmp_path, picture)
    assert any("not (1100, 700) uint8" in each for each in found.problems)


@pytest.mark.parametrize("name", FORMATS)
def test_all_black(gray8, name, tmp_path):
    found = check(gray8, name, tmp_path, windowed(gray8.picture, np.zeros_like))
    assert any("lightness" in each for each in found.problems)


@pytest.mark.parametrize("name", FORMATS)
def test_a_dark_patch(gray8, name, tmp_path):
    def read(rows, columns):
        samples = gray8.picture.read_window(rows, columns).copy()
        ys, xs = np.mgrid[rows, columns]
        samples[(ys // 100 == 3) & (xs // 100 == 5)] = 0
        return samples

    found = check(gray8, name, tmp_path, replace(gray8.picture, read_window=read))
    assert any("lightness" in each for each in found.problems)


@pytest.mark.parametrize("name", SIXTEEN)
def test_a_lost_depth(tmp_path, name):
    deep = make_result(tmp_path, "uint16")
    picture = replace(windowed(deep.picture, lambda samples: (samples // 257).astype(np.uint8)), dtype=np.dtype("u1"))
    found = check(deep, name, tmp_path, picture)
    assert any("uint8, not (1100, 700) uint16" in each for each in found.problems)


KINDS = {
    "icc": {"icc": b""},
    "exif": {"exif": b"", "tags": ()},
    "iptc": {"iptc": b"", "photoshop": PHOTOSHOP},
    "xmp": {"xmp": b""},
    "photoshop": {"photoshop": b""},
    "tags": {"tags": (), "exif": b""},
    "place": {"place": None},
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_lost_metadata(gray8, name, kind, tmp_path):
    good = write_picture(name, tmp_path / f"good{ENDINGS[name]}", gray8.picture, 2)
    if kind in good.not_carried or (kind == "icc" and name == "jp2"):  # which says it by number
        pytest.skip("it has no place for it, and says so")
    embedded = replace(gray8.picture.embedded, **KINDS[kind])
    found = check(gray8, name, tmp_path, replace(gray8.picture, embedded=embedded))
    wanted = "Digital Source Type" if kind == "xmp" else kind
    assert any(each.startswith(f"{wanted} is not kept") for each in found.problems), found.problems


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("what", "fields"), [("resolution", {"resolution": None}), ("orientation", {"orientation": 3})]
)
def test_lost_resolution_and_orientation(gray8, name, what, fields, tmp_path):
    good = write_picture(name, tmp_path / f"good{ENDINGS[name]}", gray8.picture, 2)
    if what in good.not_carried:
        pytest.skip("it has no place for it, and says so")
    found = check(gray8, name, tmp_path, replace(gray8.picture, **fields))
    # Where samples are turned instead, the size is another one.
    assert any((what if name != "iiif" else "it is (") in each for each in found.problems)


@pytest.mark.parametrize("name", SIXTEEN)
def test_a_mask_that_the_scan_has_not(gray8, name, tmp_path):
    def read(rows, columns):
        samples = gray8.picture.read_window(rows, columns)
        return np.dstack([samples, np.zeros(samples.shape[:2], samples.dtype)])

    found = check(gray8, name, tmp_path, replace(gray8.picture, read_window=read, channels=4))
    assert "it has alpha, the scan none" in found.problems


@pytest.mark.parametrize("name", LEVELLED)
def test_levels_that_are_not_there(gray8, name, tmp_path):
    path = tmp_path / f"a{ENDINGS[name]}"
    written = write_picture(name, path, gray8.picture, 2)
    assert list(level_problems(name, path, SHAPE_YX, len(written.levels_yx))) == []
    told = told_of(gray8, name, path, written)
    found = _certificate(replace(told, record=replace(told.record, levels=9)), (), "")
    assert found.problems == (f"its pyramid has {len(written.levels_yx)} levels, not 9",)


def test_a_level_of_omezarr_that_is_not_there(gray8, tmp_path):
    path = tmp_path / f"a{ENDINGS['omezarr']}"
    written = write_picture("omezarr", path, gray8.picture, 2)
    shutil.rmtree(path / "1")
    found = _certificate(told_of(gray8, "omezarr", path, written), (), "")
    assert any("pyramid" in each for each in found.problems)


def iiif(result, folder):
    path = folder / f"a{ENDINGS['iiif']}"
    return path, write_picture("iiif", path, result.picture, 2)


def test_every_picture_of_a_folder_of_tiles_is_looked_for(gray8, tmp_path):
    path, written = iiif(gray8, tmp_path)
    for picture in [*path.rglob("default.jpg")]:
        whole = picture.read_bytes()
        picture.unlink()
        found = _certificate(told_of(gray8, "iiif", path, written), (), "")
        assert not found.passes, picture
        picture.write_bytes(whole)


def test_a_tile_that_shows_something_else(gray8, tmp_path):
    path, written = iiif(gray8, tmp_path)
    tile = path / "0,0,512,512" / "512,512" / "0" / "default.jpg"
    cv2.imwrite(str(tile), 255 - cv2.imread(str(tile)))
    found = _certificate(told_of(gray8, "iiif", path, written), (), "")
    assert any("lightness" in each for each in found.problems)


@pytest.mark.parametrize("change", [{"width": 10**9}, {"tiles": []}, {"height": "x"}, None])
def test_an_info_json_that_says_something_else(gray8, change, tmp_path):
    path, written = iiif(gray8, tmp_path)
    told = json.loads((path / "info.json").read_text())
    (path / "info.json").write_text("{" if change is None else json.dumps(told | change))
    found = _certificate(told_of(gray8, "iiif", path, written), (), "")
    assert not found.passes
    assert all("\n" not in each for each in found.problems)
