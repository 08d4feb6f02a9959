"""What a TIFF says beside its pixels comes out byte for byte, as other programs read it."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from rasterio.control import GroundControlPoint

from pipeline.errors import UsageError
from pipeline.metadata import exif
from pipeline.metadata.model import EmbeddedMetadata, TiffTag
from pipeline.readers import open_scan
from pipeline.types import ReadOptions

pytestmark = pytest.mark.filterwarnings("error")

GRAY = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><!-- \xc3\xa9 --></x:xmpmeta>'
IPTC = b"\x1c\x02\x78\x00\x05Hello\x1c\x02\x50\x00\x03Ann\0\0\0"
PHOTOSHOP = b"8BIM\x03\xed\0\0\0\0\0\x10\x01\x2c\0\0\0\x01\0\x01\x01\x2c\0\0\0\x01\0\x01"


def embedded(path: Path, **options: Any) -> EmbeddedMetadata:
    with open_scan(path, ReadOptions(**options)) as reader:
        return reader.embedded


def dropped(path: Path) -> list[str]:
    with open_scan(path) as reader:
        return list(reader.info.metadata.get("dropped", []))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_blocks_and_descriptive_tags(tmp_path: Path, byteorder: str, bigtiff: bool) -> None:
    path = tmp_path / "b.tif"
    extra = [
        (700, 1, len(XMP), XMP, True),
        (33723, 7, len(IPTC), IPTC, True),
        (34377, 7, len(PHOTOSHOP), PHOTOSHOP, True),
        (269, 2, 0, "Box 12, folder 3", True),
        (285, 2, 0, "recto", True),
        (297, 3, 2, (3, 7), True),
        (315, 2, 0, "A. Photographer", True),
        (316, 2, 0, "scanner-2", True),
        (333, 2, 0, "ink", True),
        (33432, 2, 0, "(c) 1911 nobody", True),
        (50735, 2, 0, "serial 77", True),
        (318, 5, 2, (3127, 10000, 329, 1000), True),  # WhitePoint, which says something of the samples only
    ]
    tifffile.imwrite(
        path,
        GRAY,
        byteorder=byteorder,
        bigtiff=bigtiff,
        metadata=None,
        software="a scanner's own",
        datetime="1999:12:31 23:59:59",
        description="A street",
        extratags=extra,
        iccprofile=b"no profile at all, but carried",
    )
    found = embedded(path)
    assert (found.xmp, found.iptc, found.photoshop) == (XMP, IPTC, PHOTOSHOP)
    assert found.icc == b"no profile at all, but carried"
    assert found.place is None
    by_code = {tag.code: tag for tag in found.tags}
    assert by_code[297] == TiffTag(297, 3, 2, struct.pack("<2H", 3, 7))
    texts = {code: tag.value.rstrip(b"\0").decode() for code, tag in by_code.items() if tag.type == 2}
    assert texts == {
        269: "Box 12, folder 3",
        270: "A street",
        285: "recto",
        305: "a scanner's own",
        306: "1999:12:31 23:59:59",
        315: "A. Photographer",
        316: "scanner-2",
        333: "ink",
        33432: "(c) 1911 nobody",
        50735: "serial 77",
    }
    assert all(len(tag.value) == tag.count for tag in by_code.values() if tag.type == 2)
    assert dropped(path) == ["ICC profile (not an ICC profile; the samples are taken as sRGB)"]


@pytest.mark.parametrize("big_endian", [False, True])
def test_exif_and_gps_become_a_block_that_pillow_reads(tmp_path: Path, big_endian: bool) -> None:
    path = tmp_path / "e.tif"
    given = Image.Exif()
    given[0x8769] = {33434: IFDRational(1, 250), 36867: "2011:11:11 11:11:11", 37500: b"\x01\x02\x03\x04\x05"}
    given[0x8825] = {1: "N", 2: (51.0, 28.0, IFDRational(4012, 100)), 5: b"\0"}
    image = Image.fromarray(GRAY)
    if big_endian:
        image = image.convert("I;16B")
    image.save(path, exif=given.tobytes())
    assert path.read_bytes()[:2] == (b"MM" if big_endian else b"II")
    block = embedded(path).exif
    with Image.open(path) as image:
        expected = image.getexif()
        wanted = [dict(expected.get_ifd(code)) for code in (0x8769, 0x8825)]
    read = Image.Exif()
    read.load(b"Exif\0\0" + block)
    assert [dict(read.get_ifd(code)) for code in (0x8769, 0x8825)] == wanted
    assert wanted[0][33434] == pytest.approx(1 / 250)
    assert wanted[1][2][2] == pytest.approx(40.12)
    parsed = exif.parse_exif(block)
    assert {tag.code: tag.value for tag in parsed.exif}[33434] == struct.pack("<2I", 1, 250)


def test_each_page_carries_its_own(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    with tifffile.TiffWriter(path) as file:
        for name in ("recto", "verso"):
            file.write(GRAY, metadata=None, extratags=[(285, 2, 0, name, True)])
    for page, name in enumerate(("recto", "verso"), 1):
        assert [tag.value for tag in embedded(path, page=page).tags if tag.code == 285] == [name.encode() + b"\0"]


@pytest.mark.parametrize("page", [1, 2])
def test_a_place_is_as_gdal_sees_it(tmp_path: Path, page: int) -> None:
    path, transform = tmp_path / "g.tif", rasterio.Affine(0.5, 0.125, 485900, 0.25, -0.5, 5209247)
    profile = {"driver": "GTiff", "width": 64, "height": 48, "count": 1, "dtype": "uint16", "crs": "EPSG:26914"}
    if page == 2:
        write_first_page(path)
        profile["APPEND_SUBDATASET"] = "YES"
    with rasterio.open(path, "w", **profile, transform=transform) as dataset:
        dataset.write(GRAY, 1)
        dataset.update_tags(SURVEY="1938")
    place = embedded(path, page=page).place
    assert place is not None
    assert rasterio.crs.CRS.from_wkt(place.crs) == rasterio.crs.CRS.from_epsg(26914)
    assert place.transform == tuple(transform)[:6]
    codes = {tag.code for tag in place.tags}
    assert {34264, 34735} <= codes
    assert b"1938" in next(tag.value for tag in place.tags if tag.code == 42112)
    with tifffile.TiffFile(path) as file:
        matrix = file.pages[page - 1].tags[34264].value
    assert struct.unpack("<16d", next(tag.value for tag in place.tags if tag.code == 34264)) == matrix


def write_first_page(path: Path) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=9,
        height=9,
        count=1,
        dtype="uint8",
        crs="EPSG:3857",
        transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
    ) as dataset:
        dataset.write(np.zeros((1, 9, 9), np.uint8))


def test_control_points_and_rational_polynomials(tmp_path: Path) -> None:
    points = [GroundControlPoint(r, c, x, y, 5.0) for r, c, x, y in ((0, 0, 1, 2), (0, 60, 3, 2), (40, 0, 1, 9))]
    with rasterio.open(
        tmp_path / "p.tif",
        "w",
        driver="GTiff",
        width=64,
        height=48,
        count=1,
        dtype="uint16",
        gcps=points,
        crs="EPSG:4326",
    ) as dataset:
        dataset.write(GRAY, 1)
    place = embedded(tmp_path / "p.tif").place
    assert place is not None
    assert place.gcps == tuple((p.row, p.col, p.x, p.y, p.z) for p in points)
    assert "4326" in place.gcps_crs
    assert (place.crs, place.transform) == ("", ())
    numbers = [-1.0, -1.0, 20.0, 30.0, 51.0, 7.0, 300.0, 10.0, 15.0, 0.1, 0.1, 500.0, *(float(n) for n in range(80))]
    tifffile.imwrite(tmp_path / "r.tif", GRAY, metadata=None, extratags=[(50844, 12, 92, numbers, True)])
    place = embedded(tmp_path / "r.tif").place
    assert place is not None
    assert float(place.rpcs["LAT_OFF"]) == 51.0
    assert [float(n) for n in place.rpcs["SAMP_DEN_COEFF"].split()] == numbers[-20:]


def test_geo_tags_that_gdal_cannot_follow_are_kept_as_they_are(tmp_path: Path) -> None:
    nonsense = [(33550, 12, 1, 5.0, True), (34735, 3, 3, (9, 9, 9), True)]
    tifffile.imwrite(tmp_path / "g.tif", GRAY, metadata=None, extratags=nonsense)
    place = embedded(tmp_path / "g.tif").place
    assert place is not None
    assert {tag.code for tag in place.tags} == {33550, 34735}
    with open_scan(tmp_path / "g.tif") as reader:
        np.testing.assert_array_equal(reader.read(slice(None), slice(None)), GRAY)


def test_of_what_lies_beside_the_scan_only_a_world_file_is_read(tmp_path: Path) -> None:
    """GDAL's own sidecars would give it another place."""
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, GRAY, metadata=None, extratags=[(34735, 3, 8, (1, 1, 0, 1, 1024, 0, 1, 2), True)])
    (tmp_path / "s.tfw").write_text("1\n0\n0\n-1\n77\n88\n")
    (tmp_path / "s.tif.aux.xml").write_text("<PAMDataset><GeoTransform>77, 1, 0, 88, 0, -1</GeoTransform></PAMDataset>")
    place = embedded(path).place
    assert place is not None
    assert place.transform == (1, 0, 76.5, 0, -1, 88.5)
    assert dropped(path) == ["s.tif.aux.xml beside it (not read)"]
    assert {file.name for file in tmp_path.iterdir()} == {"s.tif", "s.tfw", "s.tif.aux.xml"}


XP_TITLE = "K\u00f6ln 1912".encode("utf-16-le") + b"\0\0"


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_titles_and_ratings_of_windows_are_carried(tmp_path: Path, byteorder: str) -> None:
    extra = [(code, 1, len(XP_TITLE), XP_TITLE, True) for code in range(40091, 40096)]
    extra += [(18246, 3, 1, 5, True), (18249, 3, 1, 99, True), (286, 5, 1, (5, 2), True)]
    tifffile.imwrite(tmp_path / "x.tif", GRAY, byteorder=byteorder, metadata=None, software="", extratags=extra)
    found = {tag.code: tag for tag in embedded(tmp_path / "x.tif").tags}
    assert all(found[code] == TiffTag(code, 1, len(XP_TITLE), XP_TITLE) for code in range(40091, 40096))
    assert found[18246] == TiffTag(18246, 3, 1, b"\5\0")
    assert (found[18249].value, found[286].value) == (b"\x63\0", struct.pack("<2I", 5, 2))
    assert dropped(tmp_path / "x.tif") == []


def test_tags_that_stay_out_are_listed(tmp_path: Path) -> None:
    extra = [
        (37724, 7, 6, b"layers", True),
        (33447, 5, 1, (1, 2), True),
        (50341, 7, 4, b"PIM1", True),
        (65000, 3, 3, (1, 2, 3), True),
        (65001, 2, 0, "text is carried", True),
        (326, 4, 1, 0, True),
    ]
    tifffile.imwrite(tmp_path / "t.tif", GRAY, metadata=None, extratags=extra)
    assert dropped(tmp_path / "t.tif") == ["Photoshop layers", "MDColorTable, PrintImageMatching, tag 65000"]
    many = [(code, 3, 1, 1, True) for code in range(60000, 62000)]
    tifffile.imwrite(tmp_path / "m.tif", GRAY, metadata=None, extratags=many)
    (line,) = dropped(tmp_path / "m.tif")
    assert line.startswith("tag 60000, tag 60001")
    assert line.endswith(" and 1988 more")
    assert len(line) < 200


def test_a_tag_beyond_the_end_of_the_file_is_listed(tmp_path: Path) -> None:
    title = XP_TITLE * 9
    tifffile.imwrite(tmp_path / "e.tif", GRAY, metadata=None, extratags=[(40091, 1, len(title), title, True)])
    data = (tmp_path / "e.tif").read_bytes()
    entry = struct.pack("<HHI", 40091, 1, len(title))
    at = data.index(entry) + len(entry)
    (tmp_path / "e.tif").write_bytes(data[:at] + struct.pack("<I", len(data)) + data[at + 4 :])
    assert dropped(tmp_path / "e.tif") == ["tag 40091 (damaged)"]
    assert 40091 not in {tag.code for tag in embedded(tmp_path / "e.tif").tags}


def test_primaries_of_srgb_are_no_loss_and_others_are(tmp_path: Path) -> None:
    white, srgb = (3127, 10000, 3290, 10000), (64, 100, 33, 100, 3, 10, 6, 10, 15, 100, 6, 100)
    adobe = (*srgb[:4], 21, 100, 71, 100, *srgb[8:])
    for name, primaries, lost in (("s", srgb, []), ("a", adobe, ["PrimaryChromaticities (not applied)"])):
        extra = [(318, 5, 2, white, True), (319, 5, 6, primaries, True)]
        tifffile.imwrite(tmp_path / f"{name}.tif", GRAY, metadata=None, extratags=extra)
        assert dropped(tmp_path / f"{name}.tif") == lost


def test_what_gdal_says_without_a_place_is_listed_unless_it_is_of_samples(tmp_path: Path) -> None:
    path = tmp_path / "g.tif"
    for tags, lost in (({"STATISTICS_MEAN": "3"}, []), ({"SURVEY": "1938"}, ["GDAL_METADATA"])):
        with warnings.catch_warnings(action="ignore"):  # of GDAL, that it has no place
            dataset = rasterio.open(path, "w", driver="GTiff", width=64, height=48, count=1, dtype="uint16")
        with dataset:
            dataset.write(GRAY, 1)
            dataset.update_tags(**tags)
            dataset.update_tags(1, STATISTICS_MINIMUM="0")
        assert dropped(path) == lost


@pytest.mark.parametrize("tags", [{}, {"SURVEY": "1938"}])
@pytest.mark.parametrize("options", [{}, {"MAX_Z_ERROR": "0.5"}])
def test_what_gdal_says_of_its_codec_is_no_loss(tmp_path: Path, tags: dict[str, str], options: dict[str, str]) -> None:
    path = tmp_path / "l.tif"
    profile = {"driver": "GTiff", "width": 64, "height": 48, "count": 1, "dtype": "uint16", "compress": "LERC"}
    with warnings.catch_warnings(action="ignore"):  # of GDAL, that it has no place
        dataset = rasterio.open(path, "w", **profile, **options)
    with dataset:
        dataset.write(GRAY, 1)
        dataset.update_tags(**tags)
    with tifffile.TiffFile(path) as file:
        assert "IMAGE_STRUCTURE" in file.pages.first.tags[42112].value
    assert dropped(path) == ["GDAL_METADATA"] * bool(tags)


def test_what_is_too_large_is_left_out_and_said(tmp_path: Path) -> None:
    path, huge = tmp_path / "h.tif", b"<" * (16 * 2**20 + 1)
    tifffile.imwrite(path, GRAY, metadata=None, extratags=[(700, 1, len(huge), huge, True), (315, 2, 0, "A", True)])
    assert embedded(path).xmp == b""
    assert [tag.code for tag in embedded(path).tags if tag.code == 315] == [315]
    assert dropped(path) == [f"XMP ({len(huge)} bytes)"]


@pytest.mark.parametrize("pointer", [0, 7, 10**9, 8])
def test_an_exif_pointer_to_nowhere_or_to_itself(tmp_path: Path, pointer: int) -> None:
    path = tmp_path / "e.tif"
    tifffile.imwrite(path, GRAY, metadata=None, extratags=[(34665, 4, 1, pointer, True), (315, 2, 0, "A", True)])
    found = embedded(path)
    assert any(tag.code == 315 for tag in found.tags)
    if found.exif:
        exif.parse_exif(found.exif)


def test_what_is_carried_must_be_asked_for_before_closing(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "c.tif", GRAY, metadata=None)
    reader = open_scan(tmp_path / "c.tif")
    reader.close()
    with pytest.raises(UsageError, match="close"):
        _ = reader.embedded


@pytest.mark.parametrize("code", [291, 301])
def test_curves_are_named_as_not_applied(tmp_path: Path, code: int) -> None:
    curve = tuple(range(0, 65536, 257))
    tifffile.imwrite(tmp_path / "c.tif", GRAY.astype(np.uint8), extratags=[(code, 3, 256, curve, True)])
    name = {291: "GrayResponseCurve", 301: "TransferFunction"}[code]
    assert dropped(tmp_path / "c.tif") == [f"{name} (not applied)"]
