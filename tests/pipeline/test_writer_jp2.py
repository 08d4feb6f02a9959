"""JPEG 2000: without loss, and every box where outside readers look for it."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.crs import CRS

from pipeline.formats import jp2
from pipeline.formats.picture import SRGB_PROFILE
from pipeline.metadata.jp2_boxes import box, boxes, check_codestream, resolution_box
from pipeline.metadata.model import EmbeddedMetadata, Georeference, TiffTag
from tests.pipeline.writer_conformance import (
    EXIF,
    IPTC,
    PHOTOSHOP,
    PLACE,
    TAGS,
    XMP,
    WriterConformance,
    exiftool,
    output_image,
    samples,
    smooth,
)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
CARRIED = EmbeddedMetadata(icc=SRGB_PROFILE, exif=EXIF, iptc=IPTC, xmp=XMP, photoshop=PHOTOSHOP, tags=TAGS)


class TestJp2(WriterConformance):
    name = "jp2"
    rows_of_two_sizes = (36_000, 72_000)  # beyond what GDAL's cache holds
    keeps_nodata = False

    def readings(self, path):
        with rasterio.open(path) as dataset:
            yield np.moveaxis(dataset.read(), 0, -1)
        bgr = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        yield bgr[..., [2, 1, 0, 3][: bgr.shape[2]]]
        if bgr.dtype == np.uint8:
            with Image.open(path) as image:
                yield np.asarray(image)

    def test_smaller_copies_are_in_it(self, path):
        written = self.write(path, output_image(samples((1030, 1100), "uint8")))
        assert written.levels_yx == ((1030, 1100), (515, 550), (258, 275), (129, 138))
        with Image.open(path) as image:
            image.reduce = 3
            image.load()
            assert image.size == (138, 129)

    def test_of_a_strip_as_many_smaller_copies_are_told_as_there_are(self, path):
        written = self.write(path, output_image(samples((8, 70_000), "uint8")))
        with rasterio.open(path) as dataset:
            factors = [1, *dataset.overviews(1)]
        assert len(factors) > 1
        assert written.levels_yx == tuple((-(-8 // factor), -(-70_000 // factor)) for factor in factors)

    def test_larger_tiles_where_there_would_be_too_many(self, path, monkeypatch):
        monkeypatch.setattr(jp2, "_MOST_TILES", 4)
        image = samples((1100, 2500), "uint8", 4)
        self.write(path, output_image(image))
        with rasterio.open(path) as dataset:
            assert dataset.block_shapes[0] == (1100, 2048)
            np.testing.assert_array_equal(np.moveaxis(dataset.read(), 0, -1), image)

    def test_it_lies_where_the_scan_lies(self, path):
        written = self.write(path, output_image(samples((40, 60), "uint8"), embedded=EmbeddedMetadata(place=PLACE)))
        assert not written.not_carried
        with rasterio.open(path) as dataset:
            assert dataset.crs == CRS.from_epsg(32633)
            assert tuple(dataset.transform)[:6] == PLACE.transform

    def test_what_gdal_says_is_said_to_be_lost(self, path):
        place = Georeference(PLACE.crs, PLACE.transform, tags=(TiffTag(42112, 2, 2, b"x\0"),))
        written = self.write(path, output_image(samples((40, 60), "uint8"), embedded=EmbeddedMetadata(place=place)))
        assert set(written.not_carried) == {"tags"}

    def test_control_points_and_rpcs_are_kept_or_said_to_be_lost(self, path):
        points = ((0.0, 0.0, 11.5, 48.25, 0.0), (0.0, 60.0, 11.75, 48.25, 0.0), (40.0, 0.0, 11.5, 48.0, 0.0))
        place = Georeference(gcps=points, gcps_crs=CRS.from_epsg(4326).to_wkt(), rpcs={"LINE_OFF": "20.5"})
        written = self.write(path, output_image(samples((40, 60), "uint8"), embedded=EmbeddedMetadata(place=place)))
        with rasterio.open(path) as dataset:
            found = tuple((p.row, p.col, p.x, p.y, p.z) for p in dataset.gcps[0])
            assert ("gcps" in written.not_carried) == (found != points)
            assert ("rpcs" in written.not_carried) == (not dataset.tags(ns="RPC"))

    def test_pillow_finds_the_resolution(self, path):
        written = self.write(path, output_image(smooth((40, 60)), resolution=(300.0, 240.5, "inch")))
        assert not written.not_carried
        with Image.open(path) as image:
            assert image.info["dpi"] == pytest.approx((300.0, 240.5), rel=1e-6)

    @pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
    def test_exiftool_finds_what_it_carries(self, path):
        picture = output_image(
            smooth((40, 60)), software="program 1 ä", orientation=6, resolution=(300.0, 240.5, "cm"), embedded=CARRIED
        )
        written = self.write(path, picture)
        assert not written.not_carried
        found = exiftool(path)
        assert "[IFD0] Artist: M. Müller" in found
        assert "[IFD0] Software: program 1 ä" in found
        assert "[IFD0] Orientation: 6" in found
        assert "[ExifIFD] DateTimeOriginal: 1936:05:01 12:00:00" in found
        assert "[Composite] GPSLatitude: 52.517" in found
        assert "[XMP-dc] Source: plate 17 ä" in found
        assert "[IPTC] Headline: Headline" in found
        assert "[Photoshop] URL: https://x.y" in found
        assert "Warning" not in found

    def test_a_codestream_that_is_cut_short_is_found(self, path, tmp_path):
        self.write(path, output_image(samples((1030, 1100), "uint8")))
        data = path.read_bytes()
        followed(path)
        for missing in (1, 2, 3, 4096, len(data) // 2):
            (tmp_path / "cut").write_bytes(data[: len(data) - missing])
            with pytest.raises(ValueError, match=r"not whole|bytes at byte"):
                followed(tmp_path / "cut")


def followed(path):
    with path.open("rb") as stream:
        for each in boxes(stream, path.stat().st_size):
            if each.kind == b"jp2c":
                check_codestream(stream, each)


@pytest.mark.parametrize(
    ("resolution", "per_metre"), [((300.0, 1.0, "inch"), (11811.0236, 39.3701)), ((2e7, 0.001, "cm"), (2e9, 0.1))]
)
def test_resolution_box(resolution, per_metre):
    made = resolution_box(resolution)
    numbers = np.frombuffer(made[16:24], ">u2").astype(float)
    powers = np.frombuffer(made[24:26], "i1").astype(float)
    found = numbers[2] / numbers[3] * 10 ** powers[1], numbers[0] / numbers[1] * 10 ** powers[0]
    assert found == pytest.approx(per_metre, rel=1e-4)
    assert made[:8] == box(b"res ", made[8:])[:8]


def test_a_resolution_without_a_unit_has_no_box():
    assert resolution_box((300.0, 300.0, "none")) == b""
