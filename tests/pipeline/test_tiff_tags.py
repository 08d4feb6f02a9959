"""What a scan says beside its pixels, in the TIFF of the result: as Pillow, tifffile, GDAL and exiftool read it."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from dataclasses import replace

import cv2
import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image
from rasterio.crs import CRS
from rasterio.io import MemoryFile

from pipeline.formats import tiff as writer
from pipeline.formats.picture import SRGB_PROFILE, OutputImage
from pipeline.formats.tiff import write_pyramid
from pipeline.metadata.exif import exif_block
from pipeline.metadata.model import EmbeddedMetadata, Georeference, TiffTag
from pipeline.readers import open_scan

IPTC = b"\x1c\x01\x5a\x00\x03\x1b%G" + b"\x1c\x02\x50\x00\x0aM. M\xc3\xbcller"
PHOTOSHOP = b"8BIM\x04\x04\0\0\0\0\0\x08" + b"\x1c\x02\x50\0\3abc" + b"8BIM\x03\xed\0\0\0\0\0\x02ab"
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


def ascii_tag(code, text):
    value = text.encode() + b"\0"
    return TiffTag(code, 2, len(value), value)


EXIF = exif_block(
    (ascii_tag(271, "Rollei"), ascii_tag(315, "another"), TiffTag(256, 4, 1, b"\1\0\0\0"), TiffTag(274, 3, 1, b"\6\0")),
    (TiffTag(33434, 5, 1, struct.pack("<II", 1, 125)), ascii_tag(36867, "1936:05:01 12:00:00")),
    (ascii_tag(1, "N"), TiffTag(2, 5, 3, struct.pack("<6I", 52, 1, 31, 1, 12, 10))),
    (ascii_tag(1, "R98"),),
)
TAGS = (ascii_tag(269, "Album 3"), ascii_tag(315, "M. Müller"), TiffTag(297, 3, 2, b"\1\0\5\0"))
ALL = EmbeddedMetadata(icc=SRGB_PROFILE, exif=EXIF, iptc=IPTC, xmp=XMP, photoshop=PHOTOSHOP, tags=TAGS)


def write(path, embedded, shape_yx=(300, 200), **said):
    image = np.random.default_rng(0).integers(0, 256, (*shape_yx, 3), np.uint8)
    picture = OutputImage(shape_yx, image.dtype, lambda *window: image[window], embedded=embedded, **said)
    return image, write_pyramid(path, picture)


@pytest.fixture(params=[False, True], ids=["classic", "bigtiff"])
def bigtiff(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(writer, "_CLASSIC_MAX_BYTES", 1000)
    return request.param


def test_tifffile_and_pillow_find_everything(tmp_path, bigtiff):
    image, written = write(tmp_path / "a.tif", ALL, software="s", description="d", orientation=3)
    assert written.not_carried == {}
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff == bigtiff
        tags = file.pages[0].tags
        assert [int(tag.code) for tag in tags] == sorted({int(tag.code) for tag in tags})
        assert (tags["Artist"].value, tags["Make"].value, tags["Orientation"].value) == ("M. Müller", "Rollei", 3)
        assert (tags["ImageDescription"].value, tags["Software"].value) == ("d", "s")
        assert (tags[33723].value, bytes(tags[34377].value), tags[700].value) == (IPTC, PHOTOSHOP, XMP)
        assert tags["ExifTag"].value["ExposureTime"] == (1, 125)
        assert tags["GPSTag"].value["GPSLatitude"] == (52, 1, 31, 1, 12, 10)
        np.testing.assert_array_equal(file.asarray(), image)
        assert [page.shape[:2] for page in file.pages[0].pages] == [(150, 100)]
    with Image.open(tmp_path / "a.tif") as found:
        exif = found.getexif()
        assert (exif[269], exif[297], exif[271]) == ("Album 3", (1, 5), "Rollei")
        assert exif.get_ifd(34665)[36867] == "1936:05:01 12:00:00"
        assert exif.get_ifd(34853) == {1: "N", 2: (52.0, 31.0, 1.2)}
        assert exif.get_ifd(40965) == {1: "R98"}
        assert found.info["icc_profile"] == SRGB_PROFILE
        np.testing.assert_array_equal(np.asarray(found), image[::-1, ::-1])  # turned as its orientation says


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
def test_exiftool_finds_everything_and_nothing_wrong(tmp_path, bigtiff):
    write(tmp_path / "a.tif", ALL)
    command = ["exiftool", "-j", "-a", "-G1", "-struct", "-n", "-warning", "-error"]
    fields = ["-IPTC:all", "-IFD0:all", "-ExifIFD:all", "-GPS:all", "-InteropIFD:all", "-Photoshop:all"]
    shown = subprocess.run([*command, *fields, str(tmp_path / "a.tif")], capture_output=True, text=True, check=True)
    found = json.loads(shown.stdout)[0]
    assert not [name for name in found if "Warning" in name or "Error" in name]
    assert found["IPTC:By-line"] == "M. Müller"
    assert found["IFD0:DocumentName"] == "Album 3"
    # Of a BigTIFF, exiftool 12 lists what is in these directories, by the names of others.
    if not bigtiff:
        assert found["ExifIFD:ExposureTime"] == 0.008
        assert found["InteropIFD:InteropIndex"] == "R98"
        assert found["GPS:GPSLatitude"] == pytest.approx(52.517)


@pytest.mark.filterwarnings("error")
def test_gdal_and_opencv_read_it_without_complaint(tmp_path, capfd, bigtiff):
    image, _ = write(tmp_path / "a.tif", ALL)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.tif"), -1)[..., ::-1], image)
    write(tmp_path / "b.tif", replace(ALL, place=PLACES["geographic"]))
    with rasterio.open(tmp_path / "b.tif") as dataset:
        np.testing.assert_array_equal(np.moveaxis(dataset.read(), 0, -1), image)
        # GDAL looks for Exif in classic TIFFs alone.
        assert bigtiff or dataset.tags(ns="EXIF")["EXIF_DateTimeOriginal"] == "1936:05:01 12:00:00"
    assert capfd.readouterr() == ("", "")


RATIONALS = (
    TiffTag(286, 5, 1, struct.pack("<2I", 5, 2)),
    TiffTag(287, 5, 1, struct.pack("<2I", 2**32 - 1, 2**31)),
    TiffTag(65100, 5, 3, struct.pack("<6I", 1, 2, 3, 4, 5, 6)),
    TiffTag(65101, 10, 2, struct.pack("<4i", -1, 2, 3, -4)),
)


def test_rationals_have_their_count_and_values(tmp_path, bigtiff):
    of_jpeg = exif_block((TiffTag(65102, 5, 1, struct.pack("<2I", 7, 3)),), (), (), ())
    _, written = write(tmp_path / "a.tif", EmbeddedMetadata(tags=RATIONALS, exif=of_jpeg))
    assert written.not_carried == {}
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff == bigtiff
        tags = file.pages[0].tags
        found = {
            code: (tags[code].dtype, tags[code].count, tags[code].value) for code in (286, 287, *range(65100, 65103))
        }
    assert found == {
        286: (5, 1, (5, 2)),
        287: (5, 1, (2**32 - 1, 2**31)),
        65100: (5, 3, (1, 2, 3, 4, 5, 6)),
        65101: (10, 2, (-1, 2, 3, -4)),
        65102: (5, 1, (7, 3)),
    }
    with Image.open(tmp_path / "a.tif") as picture:
        assert picture.tag_v2[286] == 2.5
        assert picture.tag_v2[65101] == (-0.5, -0.75)
    with open_scan(tmp_path / "a.tif") as reader:
        assert {*RATIONALS[:2]} <= {*reader.embedded.tags}


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
def test_exiftool_reads_rationals_as_they_were(tmp_path, bigtiff):
    write(tmp_path / "a.tif", EmbeddedMetadata(tags=RATIONALS))
    command = ["exiftool", "-j", "-n", "-warning", "-XPosition", "-YPosition", "-RawFile", "-Converter"]
    shown = subprocess.run([*command, str(tmp_path / "a.tif")], capture_output=True, text=True, check=True)
    found = json.loads(shown.stdout)[0]
    assert "Warning" not in found
    assert (found["XPosition"], found["YPosition"]) == (2.5, pytest.approx(2))
    assert found["RawFile"] == "0.5 0.75 0.8333333333"  # as Adobe's raw converter names these
    assert found["Converter"] == "-0.5 -0.75"


def test_a_file_without_exif_has_no_pointer(tmp_path):
    write(tmp_path / "a.tif", EmbeddedMetadata(icc=SRGB_PROFILE, exif=exif_block((ascii_tag(315, "x"),))))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].tags["Artist"].value == "x"
        assert 34665 not in file.pages[0].tags
        assert 34853 not in file.pages[0].tags


def test_the_description_of_the_scan_stays_where_there_is_no_other(tmp_path):
    embedded = EmbeddedMetadata(tags=(ascii_tag(270, "of the scan"), ascii_tag(305, "SilverFast")))
    write(tmp_path / "a.tif", embedded)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages[0].tags
        assert (tags["ImageDescription"].value, tags["Software"].value) == ("of the scan", "SilverFast")
        assert 34675 not in tags


@pytest.mark.parametrize(
    ("embedded", "name", "words"),
    [
        (EmbeddedMetadata(exif=b"no"), "exif", "no TIFF header"),
        (EmbeddedMetadata(tags=(TiffTag(65000, 16, 1, bytes(8)),)), "tags", "BigTIFF"),
        (EmbeddedMetadata(tags=(TiffTag(65000, 13, 1, bytes(4)),)), "tags", "offset"),
        (EmbeddedMetadata(tags=(TiffTag(65000, 3, 2, bytes(3)),)), "tags", "3 bytes"),
        (EmbeddedMetadata(place=Georeference(crs="nonsense")), "place", "GDAL"),
        (
            EmbeddedMetadata(place=Georeference(transform=(1, 0, 5, 0, -1, 9), gcps=((0, 0, 1, 1, 0),))),
            "gcps",
            "either",
        ),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, embedded, name, words):
    image, written = write(tmp_path / "a.tif", embedded)
    assert list(written.not_carried) == [name]
    assert words in written.not_carried[name]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), image)


UTM = CRS.from_epsg(32633).to_wkt()
GCPS = ((0.5, 0.5, 13.0, 52.0, 0.0), (0.0, 100.0, 13.5, 52.0, 30.0), (100.0, 0.0, 13.0, 51.5, 0.0))
COEFFICIENTS = " ".join(str(number / 7) for number in range(20))
RPCS = {f"{a}_{b}_COEFF": COEFFICIENTS for a in ("LINE", "SAMP") for b in ("NUM", "DEN")}
RPCS |= {f"{name}_{what}": "12.25" for name in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT") for what in ("OFF", "SCALE")}
PLACES = {
    "geographic": Georeference(crs=CRS.from_epsg(4326).to_wkt(), transform=(1e-5, 0.0, 13.0, 0.0, -1e-5, 52.0)),
    "projected": Georeference(crs=UTM, transform=(0.25, 0.0, 381_234.125, 0.0, -0.25, 5_820_000.0)),
    "rotated": Georeference(crs=UTM, transform=(0.2, 0.1, 381_234.0, 0.1, -0.2, 5_820_000.0)),
    "points": Georeference(gcps=GCPS, gcps_crs=CRS.from_epsg(4326).to_wkt()),
    "rpcs": Georeference(rpcs={**RPCS, "MIN_LONG": "0"}),
    "all but points": Georeference(crs=UTM, transform=(0.25, 0.0, 381_234.125, 0.0, -0.25, 5_820_000.0), rpcs=RPCS),
}


def check_place(dataset, place):
    assert dataset.crs == (CRS.from_wkt(place.crs) if place.crs else None)
    if place.transform:
        np.testing.assert_allclose(dataset.transform[:6], place.transform, rtol=1e-12)
    points, crs = dataset.gcps
    np.testing.assert_allclose([(p.row, p.col, p.x, p.y, p.z) for p in points], place.gcps or np.empty((0,)))
    assert not place.gcps or crs == CRS.from_wkt(place.gcps_crs)
    assert bool(dataset.rpcs) == bool(place.rpcs)
    if place.rpcs:
        np.testing.assert_allclose(dataset.rpcs.samp_den_coeff, [number / 7 for number in range(20)])
        assert dataset.rpcs.height_scale == 12.25


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", PLACES)
def test_a_place_without_tags_is_written_as_geotiff(tmp_path, name, bigtiff):
    _, written = write(tmp_path / "a.tif", EmbeddedMetadata(place=PLACES[name]))
    assert written.not_carried == {}
    with rasterio.open(tmp_path / "a.tif") as dataset:
        check_place(dataset, PLACES[name])


def test_the_tags_of_a_geotiff_go_on_as_they_were(tmp_path):
    transform, crs = rasterio.Affine(0.25, 0, 381_234, 0, -0.25, 5_820_000), CRS.from_epsg(32633)
    options = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8", "ENDIANNESS": "LITTLE"}
    with MemoryFile() as memory:
        with memory.open(**options, crs=crs, transform=transform) as made:
            made.update_tags(AREA_OR_POINT="Point")
        memory.seek(0)
        data = memory.read()
    (tmp_path / "scan.tif").write_bytes(data)
    with tifffile.TiffFile(tmp_path / "scan.tif") as file:
        geo = [tag for tag in file.pages[0].tags if int(tag.code) in (33550, 33922, 34264, 34735, 34736, 34737)]
        raw = [data[tag.valueoffset : tag.valueoffset + tag.valuebytecount] for tag in geo]
    tags = tuple(TiffTag(tag.code, int(tag.dtype), tag.count, value) for tag, value in zip(geo, raw, strict=True))
    _, written = write(tmp_path / "a.tif", EmbeddedMetadata(place=Georeference(tags=tags)))
    assert written.not_carried == {}
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert (dataset.crs, dataset.transform, dataset.tags()["AREA_OR_POINT"]) == (crs, transform, "Point")
