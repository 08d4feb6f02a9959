"""Cloud Optimized GeoTIFF: valid, in its place, and its overviews free of what is no picture."""

from __future__ import annotations

import base64
import struct

import cv2
import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.crs import CRS
from rio_cogeo import cog_validate

from pipeline.errors import OutputError
from pipeline.formats import cog
from pipeline.formats.picture import SRGB_PROFILE
from pipeline.metadata.model import EmbeddedMetadata, Georeference, TiffTag
from tests.pipeline.writer_conformance import (
    EXIF,
    IPTC,
    PHOTOSHOP,
    PLACE,
    TAGS,
    XMP,
    WriterConformance,
    output_image,
    samples,
    text_tag,
)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

GCPS = ((0.0, 0.0, 11.5, 48.25, 500.0), (0.0, 60.0, 11.75, 48.25, 501.5), (40.0, 0.0, 11.5, 48.0, 0.0))
RPCS = {
    "LINE_OFF": "20.5", "SAMP_OFF": "30", "LAT_OFF": "48.1", "LONG_OFF": "11.6", "HEIGHT_OFF": "500",
    "LINE_SCALE": "20", "SAMP_SCALE": "30", "LAT_SCALE": "0.125", "LONG_SCALE": "0.125", "HEIGHT_SCALE": "100",
    "LINE_NUM_COEFF": " ".join(map(str, range(20))), "LINE_DEN_COEFF": " ".join(["1"] + ["0"] * 19),
    "SAMP_NUM_COEFF": " ".join(f"{n / 7:.12g}" for n in range(20)), "SAMP_DEN_COEFF": " ".join(["1"] + ["0"] * 19),
    "ERR_BIAS": "-1", "ERR_RAND": "-1",
}  # fmt: skip
# GTRasterTypeGeoKey: the samples are points.
POINT = TiffTag(34735, 3, 8, struct.pack("<8H", 1, 1, 0, 1, 1025, 0, 1, 2))


class TestCog(WriterConformance):
    name = "cog"
    rows_of_two_sizes = (36_000, 72_000)  # beyond what GDAL's cache holds

    def readings(self, path):
        with rasterio.open(path) as dataset:
            yield np.moveaxis(dataset.read(), 0, -1)
        yield tifffile.imread(path, key=0)
        bgr = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if bgr.shape[2] == 3:  # OpenCV multiplies colours with alpha
            yield bgr[..., ::-1]

    def nodata_of(self, path):
        with rasterio.open(path) as dataset:
            assert len(set(dataset.nodatavals)) == 1
            return dataset.nodata

    @pytest.mark.parametrize("channels", [3, 4])
    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_it_is_valid(self, path, dtype, channels):
        embedded = EmbeddedMetadata(icc=SRGB_PROFILE, xmp=XMP, tags=TAGS, place=PLACE)
        written = self.write(path, output_image(samples((1030, 1100), dtype, channels), embedded=embedded))
        valid, errors, warnings = cog_validate(path, strict=True)
        assert (valid, errors, warnings) == (True, [], [])
        with tifffile.TiffFile(path) as file:
            assert written.levels_yx == tuple(page.shape[:2] for page in file.pages)
            assert len(file.pages) > 1
        with rasterio.open(path) as dataset:
            assert [band.name for band in dataset.colorinterp] == ["red", "green", "blue", "alpha"][:channels]

    def test_what_it_carries(self, path):
        embedded = EmbeddedMetadata(icc=SRGB_PROFILE, xmp=XMP, tags=(*TAGS, text_tag(306, "1936:05:01 12:00:00")))
        written = self.write(
            path,
            output_image(
                samples((40, 60), "uint8"),
                resolution=(300.5, 240.0, "cm"),
                software="program 1 ä",
                description="colours",
                embedded=embedded,
            ),
        )
        assert not written.not_carried
        with tifffile.TiffFile(path) as file:
            tags = file.pages[0].tags
            found = {name: tags[name].value for name in ("DocumentName", "Artist", "Copyright", "DateTime", "Software")}
            assert list(found.values()) == ["plate 17", "M. Müller", "CC0", "1936:05:01 12:00:00", "program 1 ä"]
            assert tags["ImageDescription"].value == "colours"
            assert (tags["XResolution"].value, tags["YResolution"].value) == ((601, 2), (240, 1))
            assert tags["ResolutionUnit"].value == 3
            assert tags["InterColorProfile"].value == SRGB_PROFILE
            assert tags["XMP"].value == XMP
        with rasterio.open(path) as dataset:
            assert base64.b64decode(dataset.tags(ns="COLOR_PROFILE")["SOURCE_ICC_PROFILE"]) == SRGB_PROFILE
            assert dataset.tags(ns="xml:XMP")["xml:XMP"] == XMP.decode()

    def test_what_it_does_not_carry_is_said(self, path):
        embedded = EmbeddedMetadata(
            exif=EXIF, iptc=IPTC, photoshop=PHOTOSHOP, tags=(*TAGS, text_tag(271, "Heidelberg"))
        )
        written = self.write(path, output_image(samples((40, 60), "uint8"), orientation=6, embedded=embedded))
        assert set(written.not_carried) == {"exif", "iptc", "photoshop", "orientation", "tags"}
        assert written.not_carried["tags"].endswith("271")
        with tifffile.TiffFile(path) as file:
            assert not {"ExifTag", "IPTC", "ImageResources", "Make", "Orientation"} & {
                tag.name for tag in file.pages[0].tags
            }

    @pytest.mark.parametrize("tags", [(), (POINT,)])
    @pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3857"])
    def test_it_lies_where_the_scan_lies(self, path, crs, tags):
        transform = (0.1, 0.01, 12.3456789, -0.01, -0.1, 48.7654321)
        place = Georeference(crs=CRS.from_string(crs).to_wkt(), transform=transform, tags=tags)
        written = self.write(path, output_image(samples((40, 60), "uint8"), embedded=EmbeddedMetadata(place=place)))
        assert not written.not_carried
        with rasterio.open(path) as dataset:
            assert dataset.crs == CRS.from_string(crs)
            assert tuple(dataset.transform)[:6] == transform
            assert dataset.tags()["AREA_OR_POINT"] == ("Point" if tags else "Area")

    def test_what_gdal_says_goes_on(self, path):
        value = b'<GDALMetadata>\n  <Item name="SURVEY">1936</Item>\n</GDALMetadata>\n\0'
        place = Georeference(PLACE.crs, PLACE.transform, tags=(TiffTag(42112, 2, len(value), value),))
        written = self.write(path, output_image(samples((40, 60), "uint8"), embedded=EmbeddedMetadata(place=place)))
        assert not written.not_carried
        with rasterio.open(path) as dataset:
            assert dataset.tags()["SURVEY"] == "1936"

    def test_control_points_and_rpcs(self, path):
        place = Georeference(gcps=GCPS, gcps_crs=CRS.from_epsg(4326).to_wkt(), rpcs=RPCS)
        written = self.write(path, output_image(samples((40, 60), "uint8"), embedded=EmbeddedMetadata(place=place)))
        assert not written.not_carried
        with rasterio.open(path) as dataset:
            points, crs = dataset.gcps
            assert [(p.row, p.col, p.x, p.y, p.z) for p in points] == list(GCPS)
            assert crs == CRS.from_epsg(4326)
            assert dataset.rpcs.samp_num_coeff == pytest.approx([n / 7 for n in range(20)], rel=1e-11)
            assert (dataset.rpcs.line_off, dataset.rpcs.lat_off) == (20.5, 48.1)

    def test_a_place_that_geotiff_cannot_hold_twice_is_said(self, path):
        place = Georeference(crs=PLACE.crs, transform=PLACE.transform, gcps=GCPS, gcps_crs=CRS.from_epsg(4326).to_wkt())
        written = self.write(path, output_image(samples((40, 60), "uint8"), embedded=EmbeddedMetadata(place=place)))
        with rasterio.open(path) as dataset:
            has_place = tuple(dataset.transform)[:6] == PLACE.transform
            has_points = len(dataset.gcps[0]) == len(GCPS)
        assert not (has_place and has_points)
        assert ("place" in written.not_carried, "gcps" in written.not_carried) == (not has_place, not has_points)

    @pytest.mark.parametrize(("nodata", "values"), [(0, (90, 150)), (120, (119, 121)), (255, (90, 254))])
    def test_nodata_does_not_bleed_into_overviews(self, path, nodata, values):
        image = np.full((1100, 1100, 3), nodata, np.uint8)
        image[201:901, 101:801] = np.random.default_rng(0).choice(values, (700, 700, 1))
        self.write(path, output_image(image, nodata=nodata))
        with rasterio.open(path, overview_level=0) as dataset:
            half, there = dataset.read(1), dataset.read_masks(1) > 0
        inside = np.zeros((550, 550), bool)
        inside[100:451, 50:401] = True
        np.testing.assert_array_equal(there, inside)
        assert values[0] <= half[inside].min()
        assert half[inside].max() <= values[1]

    @pytest.mark.parametrize("level", [0, 1])
    def test_what_gdal_did_not_write_is_found(self, path, level, monkeypatch):
        """A page that found no place on the disk is one of zeros; closing a file, GDAL does not always say so."""
        copy_picture = cog.copy_picture

        def copy_with_a_hole(*arguments, **options):
            made = copy_picture(*arguments, **options)
            with tifffile.TiffFile(made) as file:
                tile = file.pages[level].dataoffsets[0]
            with made.open("r+b") as stream:
                stream.seek(tile + 5000)
                stream.write(bytes(4096))
            return made

        monkeypatch.setattr(cog, "copy_picture", copy_with_a_hole)
        with pytest.raises(OutputError, match="cannot be written"):
            self.write(path, output_image(samples((1030, 1100), "uint8")))
        assert not list(path.parent.iterdir())

    def test_what_is_transparent_does_not_bleed_into_overviews(self, path):
        image = np.zeros((1100, 1100, 4), np.uint8)
        image[201:901, 101:801] = (200, 200, 200, 255)
        self.write(path, output_image(image))
        with rasterio.open(path, overview_level=0) as dataset:
            red, alpha = dataset.read(1), dataset.read(4)
        assert (red[alpha > 0] == 200).all()
        assert (alpha[110:440, 60:390] == 255).all()
