"""What GDAL opens: the same pixels as other decoders give; what the file says; nothing but the file is read."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import ScanError, ScanUnreadableError, ScanUnsupportedError
from pipeline.readers import open_scan
from pipeline.types import ReadOptions, ScanInfo
from tests.pipeline.test_readers_image import EXIF_BLOCK, IPTC, WIDE_GAMMA, XMP, lightness_of, linear_profile, soft

pytestmark = pytest.mark.filterwarnings("error", "ignore:'mode' parameter:DeprecationWarning")

EVERYTHING = slice(None), slice(None)
SHAPE_YX = 90, 130


def read(path: Path, **reading: Any) -> tuple[NDArray[Any], ScanInfo]:
    with open_scan(path, ReadOptions(**reading)) as reader:
        whole = reader.read(*EVERYTHING)
        height, width = reader.info.shape_yx
        part = slice(height // 3, height - 1), slice(width // 4, width + 9)
        np.testing.assert_array_equal(reader.read(*part), whole[part])
        return whole, reader.info


def pillow(path: Path, mode: str) -> NDArray[Any]:
    with Image.open(path) as image:
        return np.asarray(image.convert(mode))


PICTURES: dict[str, Any] = {
    "gray.jp2": ("L", {}),
    "rgb.jp2": ("RGB", {"tile_size": (64, 64)}),
    "alpha.jp2": ("RGBA", {}),
    "stream.j2k": ("RGB", {}),
    "rgb.webp": ("RGB", {"quality": 80}),
    "alpha.webp": ("RGBA", {"lossless": True}),
    "gray.gif": ("L", {}),
    "palette.gif": ("P", {}),
    "gray.bmp": ("L", {}),
    "bits.bmp": ("1", {}),
    "rgb.bmp": ("RGB", {}),
    "palette.bmp": ("P", {}),
    "gray.pgm": ("L", {}),
    "rgb.ppm": ("RGB", {}),
    "gray.sgi": ("L", {}),
    "rgb.sgi": ("RGB", {}),
    "alpha.sgi": ("RGBA", {}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pixels_are_those_of_pillow(tmp_path: Path, name: str) -> None:
    mode, options = PICTURES[name]
    rgba = soft(SHAPE_YX, 4)
    rgb = Image.fromarray(np.ascontiguousarray(rgba[:, :, :3]))
    image = Image.fromarray(rgba) if mode == "RGBA" else rgb.quantize(40) if mode == "P" else rgb.convert(mode)
    path = tmp_path / name
    image.save(path, **options)
    got, info = read(path)
    coloured = mode in ("RGB", "RGBA", "P")
    assert (info.channels, info.dtype, info.tone) == (3 if coloured else 1, "uint8", "srgb")
    np.testing.assert_array_equal(got, pillow(path, "RGB" if coloured else "L"))
    assert info.mask == ("alpha" if mode == "RGBA" else "")
    if mode == "RGBA":
        with open_scan(path) as reader:
            np.testing.assert_array_equal(reader.read_mask(*EVERYTHING), pillow(path, "RGBA")[:, :, 3])


def test_pixels_of_sixteen_bits_are_those_of_opencv_and_imagecodecs(tmp_path: Path) -> None:
    deep = soft(SHAPE_YX, 3).astype(np.uint16) * 257
    for name in ("deep.ppm", "deep.jp2"):
        cv2.imwrite(str(tmp_path / name), deep[:, :, ::-1], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
        got, info = read(tmp_path / name)
        assert (info.dtype, info.channels) == ("uint16", 3)
        np.testing.assert_array_equal(got, cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)[:, :, ::-1])
        assert np.abs(got.astype(int) - deep).max() <= 600
    np.testing.assert_array_equal(got, imagecodecs.jpeg2k_decode((tmp_path / "deep.jp2").read_bytes()))


def test_twelve_bits_are_stretched(tmp_path: Path) -> None:
    twelve = np.random.default_rng(1).integers(0, 4096, SHAPE_YX, dtype=np.uint16)
    expected = np.rint(twelve * (65535 / 4095)).astype(np.uint16)
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(twelve, bitspersample=12, level=0, reversible=True))
    (tmp_path / "a.pgm").write_bytes(b"P5\n# a comment\n130 90\n4095\n" + twelve.astype(">u2").tobytes())
    for name in ("a.jp2", "a.pgm"):
        np.testing.assert_array_equal(read(tmp_path / name)[0], expected)


def test_a_large_jpeg_2000_is_read_block_by_block(tmp_path: Path) -> None:
    picture = np.kron(soft((60, 70), 1), np.ones((40, 40), np.uint8))
    path = tmp_path / "large.jp2"
    Image.fromarray(picture).save(path, tile_size=(512, 512))
    with open_scan(path) as reader:
        assert reader.segment_yx == (512, 512)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(reader.read(slice(500, 530), slice(1000, 1400)), picture[500:530, 1000:1400])


def test_transparent_colour_of_a_gif_is_a_mask(tmp_path: Path) -> None:
    image = Image.fromarray(soft(SHAPE_YX)).quantize(20)
    image.save(tmp_path / "t.gif", transparency=3)
    with open_scan(tmp_path / "t.gif") as reader:
        assert reader.info.mask == "alpha"
        mask = reader.read_mask(*EVERYTHING)
    np.testing.assert_array_equal(mask, pillow(tmp_path / "t.gif", "RGBA")[:, :, 3])
    assert 0 < (mask == 0).sum() < mask.size


def test_later_frames_are_named(tmp_path: Path) -> None:
    first, *others = (Image.fromarray(soft(SHAPE_YX, 1, seed)) for seed in range(3))
    first.save(tmp_path / "m.gif", save_all=True, append_images=others)
    got, info = read(tmp_path / "m.gif")
    np.testing.assert_array_equal(got, np.asarray(first))
    assert info.metadata["dropped"] == ["frames 2-3"]
    first.save(tmp_path / "m.webp", save_all=True, append_images=others)
    with pytest.raises(ScanUnsupportedError, match="animated"):
        read(tmp_path / "m.webp")


def test_later_pictures_of_a_pnm_are_named(tmp_path: Path) -> None:
    gray, colour = soft(SHAPE_YX, 1), soft(SHAPE_YX)
    one, other = b"P5\n130 90\n255\n" + gray.tobytes(), b"P6 130 90 65535\n" + colour.astype(">u2").tobytes()
    bits = b"P4\n130 90\n" + np.packbits(gray > 99, axis=1).tobytes()
    for data, expected in (
        (one, None),
        (one + other, ["picture 2"]),
        (one + other + bits + one, ["pictures 2-4"]),
        (bits + one, ["picture 2"]),
        (one + b"P9", None),
    ):
        (tmp_path / "a.pnm").write_bytes(data)
        got, info = read(tmp_path / "a.pnm")
        np.testing.assert_array_equal(got, gray if data.startswith(one) else 255 * (gray <= 99))
        assert info.metadata.get("dropped") == expected


def test_later_images_of_a_nitf_are_named(tmp_path: Path) -> None:
    unplaced(tmp_path / "a.ntf", soft((64, 64), 1), "NITF", NUMI="3")
    for _ in range(2):
        unplaced(tmp_path / "a.ntf", soft((64, 64), 1, 9), "NITF", APPEND_SUBDATASET="YES")
    got, info = read(tmp_path / "a.ntf")
    np.testing.assert_array_equal(got, soft((64, 64), 1))
    assert info.metadata["dropped"] == ["the fields of the NITF header", "images 2-3"]


def georeferenced(path: Path, picture: NDArray[Any], driver: str, **options: Any) -> None:
    """A file with a place on Earth, and nothing beside it."""
    planes = picture[None] if picture.ndim == 2 else np.moveaxis(picture, 2, 0)
    count, height, width = planes.shape
    shape = {"width": width, "height": height, "count": count, "dtype": picture.dtype.name}
    with (
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        rasterio.open(path, "w", driver=driver, crs="EPSG:32633", transform=PLACED, **shape, **options) as file,
    ):
        file.write(planes)


def unplaced(path: Path, picture: NDArray[Any], driver: str, **options: Any) -> None:
    height, width = picture.shape
    shape = {"width": width, "height": height, "count": 1, "dtype": picture.dtype.name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver=driver, **shape, **options) as file:
            file.write(picture, 1)


PLACED = rasterio.Affine(2, 0, 500_000, 0, -2, 4_000_000)


@pytest.mark.parametrize(("name", "driver"), [("a.img", "HFA"), ("a.jp2", "JP2OpenJPEG")])
def test_a_place_on_earth_is_carried(tmp_path: Path, name: str, driver: str) -> None:
    picture = soft((128, 128), 3)
    lossless = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver != "HFA" else {}
    georeferenced(tmp_path / name, picture, driver, **lossless)
    np.testing.assert_array_equal(read(tmp_path / name)[0], picture)
    with open_scan(tmp_path / name) as reader:
        place = reader.embedded.place
    assert place is not None
    assert rasterio.CRS.from_wkt(place.crs).to_epsg() == 32633
    assert place.transform == tuple(PLACED)[:6]


def test_nitf(tmp_path: Path) -> None:
    picture = soft((128, 128), 1)
    unplaced(tmp_path / "a.ntf", picture, "NITF")
    got, info = read(tmp_path / "a.ntf")
    np.testing.assert_array_equal(got, picture)
    assert info.metadata["format"] == "NITF"
    with open_scan(tmp_path / "a.ntf") as reader:
        assert reader.embedded.place is None


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", "float32", "float64"])
def test_other_types_are_stretched_from_the_smallest_to_the_largest(tmp_path: Path, dtype: str) -> None:
    picture = (soft((128, 128), 1).astype(np.float64) - 20).astype(dtype if dtype[0] != "u" else "float64")
    picture = np.abs(picture).astype(dtype)
    if dtype == "int16":
        picture = -picture
    georeferenced(tmp_path / "a.img", picture, "HFA")
    got, info = read(tmp_path / "a.img")
    low, high = float(picture.min()), float(picture.max())
    np.testing.assert_array_equal(got, np.rint((picture - low) * (65535 / (high - low))))
    assert (info.dtype, info.depth) == ("uint16", "uint16")
    assert dtype in info.metadata["lightness"]


def test_floats_between_zero_and_one_are_shares_of_full_scale(tmp_path: Path) -> None:
    picture = (soft((128, 128), 1) / 255 * 0.5 + 0.2).astype(np.float32)
    georeferenced(tmp_path / "a.img", picture, "HFA")
    np.testing.assert_array_equal(read(tmp_path / "a.img")[0], np.rint(picture.astype(np.float64) * 65535))


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 7), ("int16", -999), ("float32", -9.5)])
def test_nodata_is_the_mask(tmp_path: Path, dtype: str, nodata: float) -> None:
    picture = soft((128, 128), 1).astype(dtype)
    picture[picture == nodata] += 1
    hole = np.s_[20:60, 30:90]
    picture[hole] = nodata
    georeferenced(tmp_path / "a.img", picture, "HFA", nodata=nodata)
    with open_scan(tmp_path / "a.img") as reader:
        info, got, mask = reader.info, reader.read(*EVERYTHING), reader.read_mask(*EVERYTHING)
    full = np.iinfo(info.result_dtype).max
    expected = np.full((128, 128), full)
    expected[hole] = 0
    np.testing.assert_array_equal(mask, expected)
    assert mask.dtype == info.result_dtype
    assert info.mask == "nodata"
    assert (got[hole] == info.nodata).all()
    assert not (got[mask > 0] == info.nodata).any()


def test_webp_carries_its_blocks_and_profile(tmp_path: Path) -> None:
    profile = bytes(imagecodecs.cms_profile("rgb", whitepoint=[0.3127, 0.329, 1.0], gamma=WIDE_GAMMA, primaries=SRGB))
    picture = soft(SHAPE_YX)
    Image.fromarray(picture).save(
        tmp_path / "b.webp", lossless=True, icc_profile=profile, exif=b"Exif\0\0" + EXIF_BLOCK, xmp=XMP % b""
    )
    got, info = read(tmp_path / "b.webp")
    luminance = (picture / 255) ** WIDE_GAMMA @ [0.2126, 0.7152, 0.0722]
    assert (info.tone, info.channels, info.depth) == ("lightness", 1, "uint8")
    assert np.abs(got / 655.35 - lightness_of(luminance)).max() < 0.3
    with open_scan(tmp_path / "b.webp") as reader:
        embedded = reader.embedded
    assert (embedded.icc, embedded.exif, embedded.xmp) == (profile, EXIF_BLOCK, XMP % b"")
    assert info.metadata["orientation"] == 6
    assert info.metadata["resolution"] == [118.0, 118.0, "cm"]


SRGB = [0.64, 0.33, 1.0, 0.30, 0.60, 1.0, 0.15, 0.06, 1.0]


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def jp2_with(picture: NDArray[Any], more: bytes = b"", *, header: bytes = b"") -> bytes:
    """A JP2 file with more boxes in front of the codestream, and more or others in its header."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG2000")
    whole = file.getvalue()
    at, stream = whole.index(b"jp2h") - 4, whole.index(b"jp2c") - 4
    size = int.from_bytes(whole[at : at + 4], "big")
    inner = whole[at + 8 : at + size]
    if header.startswith(box(b"colr", b"\2\0\0")[4:8]) or b"colr" in header[:8]:
        inner = inner[: inner.index(b"colr") - 4]
    return whole[:at] + box(b"jp2h", inner + header) + more + whole[stream:]


def test_jpeg_2000_carries_its_boxes(tmp_path: Path) -> None:
    uuids = {
        "exif": b"JpgTiffExif->JP2" + EXIF_BLOCK,
        "xmp": bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC") + XMP % b"",
        "iptc": bytes.fromhex("33C7A4D2B81D4723A0BAF1A3E097AD38") + IPTC,
    }
    more = b"".join(box(b"uuid", body) for body in uuids.values()) + box(b"xml ", b"<a/>")
    # 11811 pixels a metre: 300 an inch
    resolution = box(b"res ", box(b"resc", struct.pack(">4H2b", 11811, 1, 11811, 1, 0, 0)))
    (tmp_path / "b.jp2").write_bytes(jp2_with(soft(SHAPE_YX), more, header=resolution))
    got, info = read(tmp_path / "b.jp2")
    np.testing.assert_array_equal(got, soft(SHAPE_YX))
    with open_scan(tmp_path / "b.jp2") as reader:
        embedded = reader.embedded
    assert (embedded.exif, embedded.xmp, embedded.iptc) == (EXIF_BLOCK, XMP % b"", IPTC)
    assert info.metadata["orientation"] == 6
    assert info.metadata["resolution"] == [118.11, 118.11, "cm"]
    assert info.metadata["dropped"] == ["'xml' box"]


def test_jpeg_2000_with_a_gray_profile(tmp_path: Path) -> None:
    picture = soft(SHAPE_YX, 1)
    profiled = box(b"colr", b"\2\0\0" + linear_profile())
    (tmp_path / "g.jp2").write_bytes(jp2_with(picture, header=profiled))
    got, info = read(tmp_path / "g.jp2")
    assert info.tone == "lightness"
    assert np.abs(got / 655.35 - lightness_of((picture / 255) ** WIDE_GAMMA)).max() < 0.2


def in_space(path: Path, samples: NDArray[Any], space: int, **options: Any) -> None:
    """A JP2 file, lossless, that says a number of a colour space."""
    data = bytearray(imagecodecs.jpeg2k_encode(samples, level=0, codecformat="jp2", mct=False, **options))
    at = data.index(b"colr") + 7
    data[at : at + 4] = struct.pack(">I", space)
    path.write_bytes(data)


def test_sycc_is_turned_into_rgb(tmp_path: Path) -> None:
    rgb = soft(SHAPE_YX)
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    in_space(tmp_path / "y.jp2", ycc, 18, colorspace="SRGB")
    got, info = read(tmp_path / "y.jp2")
    assert (info.channels, info.tone) == (3, "srgb")
    assert np.abs(got.astype(int) - pillow(tmp_path / "y.jp2", "RGB")).max() <= 3
    assert np.abs(got.astype(int) - rgb).max() <= 3
    # Shifted to more bits, white is one level of 8 bits darker.
    in_space(tmp_path / "deep.jp2", ycc.astype(np.uint16) * 256, 18, colorspace="SRGB")
    assert np.abs(read(tmp_path / "deep.jp2")[0] / 257 - rgb).max() <= 4
    in_space(tmp_path / "ten.jp2", ycc.astype(np.uint16) * 4, 18, colorspace="SRGB", bitspersample=10)
    assert np.abs(read(tmp_path / "ten.jp2")[0] / 257 - rgb).max() <= 4


def test_sycc_of_gray_is_gray(tmp_path: Path) -> None:
    gray = soft(SHAPE_YX, 1)
    in_space(tmp_path / "g.jp2", gray, 18, colorspace="GRAY")
    np.testing.assert_array_equal(read(tmp_path / "g.jp2")[0], gray)
    in_space(tmp_path / "n.jp2", np.dstack([gray, np.full((*SHAPE_YX, 2), 128, np.uint8)]), 18, colorspace="SRGB")
    np.testing.assert_array_equal(read(tmp_path / "n.jp2")[0], np.dstack([gray] * 3))


def test_sycc_with_chroma_of_half_the_resolution(tmp_path: Path) -> None:
    rgb = soft(SHAPE_YX)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            tmp_path / "a.tif", "w", "GTiff", SHAPE_YX[1], SHAPE_YX[0], 3, dtype="uint8", photometric="rgb"
        ) as file:
            file.write(np.moveaxis(rgb, 2, 0))
        rasterio.shutil.copy(
            tmp_path / "a.tif", tmp_path / "a.jp2", driver="JP2OpenJPEG", QUALITY="100", YCBCR420="YES"
        )
    data = (tmp_path / "a.jp2").read_bytes()
    sizes = data.index(b"\xff\x4f\xff\x51") + 42
    assert data[sizes : sizes + 9] == b"\7\1\1\7\2\2\7\2\2"
    got = read(tmp_path / "a.jp2")[0]
    assert np.abs(got.astype(int) - pillow(tmp_path / "a.jp2", "RGB")).max() <= 3
    assert np.abs(got.astype(int) - rgb).mean() < 5
    (tmp_path / "a.jp2").write_bytes(data[: sizes + 5] + b"\1" + data[sizes + 6 :])
    with pytest.raises(ScanUnsupportedError, match="unequal resolution"):
        read(tmp_path / "a.jp2")


@pytest.mark.parametrize(("space", "name"), [(24, "e-sYCC"), (21, "ROMM"), (12, "CMYK"), (9, "PhotoYCC"), (99, "99")])
def test_other_colour_spaces_of_jpeg_2000_are_refused(tmp_path: Path, space: int, name: str) -> None:
    in_space(tmp_path / "y.jp2", soft(SHAPE_YX), space, colorspace="SRGB")
    with pytest.raises(ScanUnsupportedError, match=f"in .*{name}"):
        read(tmp_path / "y.jp2")


def test_what_gif_and_bmp_cannot_carry_further_is_named(tmp_path: Path) -> None:
    Image.fromarray(soft(SHAPE_YX, 1)).save(tmp_path / "c.gif", comment=b"by hand")
    data = (tmp_path / "c.gif").read_bytes()
    at = data.index(b"!\xfe")
    xmp = b"!\xff\x0bXMP DataXMP" + b"\x03abc" + b"\0"
    (tmp_path / "c.gif").write_bytes(data[:at] + xmp + data[at:])
    got, info = read(tmp_path / "c.gif")
    np.testing.assert_array_equal(got, soft(SHAPE_YX, 1))
    assert info.metadata["dropped"] == ["application extension 'XMP DataXMP'", "comment"]


def test_a_bmp_with_a_profile_in_it(tmp_path: Path) -> None:
    profile = bytes(imagecodecs.cms_profile("rgb", whitepoint=[0.3127, 0.329, 1.0], gamma=WIDE_GAMMA, primaries=SRGB))
    picture = np.ascontiguousarray(soft((40, 32)))
    pixels = picture[::-1, :, ::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", 124, 32, 40, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    head += bytes(16) + b"DEBM" + bytes(36 + 12) + struct.pack("<IIII", 4, 124 + len(pixels), len(profile), 0)
    file = b"BM" + struct.pack("<IHHI", 14 + 124 + len(pixels) + len(profile), 0, 0, 14 + 124) + head + pixels + profile
    (tmp_path / "p.bmp").write_bytes(file)
    with Image.open(tmp_path / "p.bmp") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    got, info = read(tmp_path / "p.bmp")
    luminance = (picture / 255) ** WIDE_GAMMA @ [0.2126, 0.7152, 0.0722]
    assert info.tone == "lightness"
    assert np.abs(got / 655.35 - lightness_of(luminance)).max() < 0.3


def test_a_bmp_with_alpha(tmp_path: Path) -> None:
    rgba = np.ascontiguousarray(soft((40, 32), 4))
    head = struct.pack("<IiiHHIIiiII", 108, 32, -40, 1, 32, 3, rgba.nbytes, 3937, 3937, 0, 0)
    head += struct.pack("<IIII", 0xFF, 0xFF00, 0xFF0000, 0xFF000000) + bytes(52)
    file = b"BM" + struct.pack("<IHHI", 14 + 108 + rgba.nbytes, 0, 0, 14 + 108) + head + rgba.tobytes()
    (tmp_path / "a.bmp").write_bytes(file)
    got, info = read(tmp_path / "a.bmp")
    np.testing.assert_array_equal(got, rgba[:, :, :3])
    np.testing.assert_array_equal(got, cv2.imread(str(tmp_path / "a.bmp"))[:, :, ::-1])
    with open_scan(tmp_path / "a.bmp") as reader:
        np.testing.assert_array_equal(reader.read_mask(*EVERYTHING), rgba[:, :, 3])
    assert info.metadata["resolution"] == [39.37, 39.37, "cm"]
    assert "dropped" not in info.metadata


# Nothing but the file


@pytest.fixture
def requests() -> Iterator[tuple[int, list[str]]]:
    """The port of a server on this machine, and what was asked of it."""
    asked: list[str] = []

    class Recording(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Recording)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    thread.join()
    server.server_close()


def refer_to(secret: Path, address: str) -> dict[str, bytes]:
    """Files that name another file or address where their formats, or other drivers, would look for it."""
    picture = soft((64, 64), 1)
    vrt = (
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        "<SourceFilename>{}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    gml = (
        '<gml:FeatureCollection xmlns:gml="http://www.opengis.net/gml" xmlns:xlink="http://www.w3.org/1999/xlink">'
        '<gml:featureMember><gml:RectifiedGrid dimension="2"><gml:origin><gml:Point srsName="{0}">'
        '<gml:coordinates>1,2</gml:coordinates></gml:Point></gml:origin><gml:file xlink:href="{0}"/>'
        "</gml:RectifiedGrid></gml:featureMember></gml:FeatureCollection>"
    )
    labelled = [
        box(b"lbl ", b"gml.root-instance") + box(b"xml ", gml.format(name).encode()) for name in (secret, address)
    ]
    asoc = b"".join(box(b"asoc", box(b"lbl ", b"gml.data") + box(b"asoc", instance)) for instance in labelled)
    wms = f"<GDAL_WMS><Service name='TMS'><ServerUrl>{address}</ServerUrl></Service></GDAL_WMS>"
    return {
        "vrt-file.tif": vrt.format(secret).encode(),
        "vrt-address.png": vrt.format(f"/vsicurl/{address}").encode(),
        "wms.tif": wms.encode(),
        "gml.jp2": jp2_with(picture, asoc),
        "xmp.jp2": jp2_with(picture, box(b"uuid", bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC") + vrt.encode())),
        "mrf.tif": f"<MRF_META><CachedSource><Source>{address}</Source></CachedSource></MRF_META>".encode(),
        "path.tif": f"/vsicurl/{address}".encode(),
        "subset.jp2": f"J2K_SUBFILE:0,100,{secret}".encode(),
    }


def test_no_file_leads_to_another_file_or_to_the_network(
    tmp_path: Path, requests: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, asked = requests
    secret = tmp_path / "secret" / "secret.png"
    secret.parent.mkdir()
    Image.fromarray(np.full((64, 64), 99, np.uint8)).save(secret)
    control = secret.with_name("control.png")
    control.write_bytes(secret.read_bytes())
    for file in (secret, control):
        os.utime(file, (0, 0))  # times of access that any reading moves, where the file system keeps them
    folder = tmp_path / "scans"
    folder.mkdir()
    files = refer_to(secret, f"http://127.0.0.1:{port}/secret.png")
    for name, data in files.items():
        (folder / name).write_bytes(data)
        # What GDAL would otherwise look for beside the file.
        (folder / f"{name}.aux.xml").write_text(f"<PAMDataset><SRS>{secret}</SRS></PAMDataset>")
        (folder / name).with_suffix(".j2w").write_text("5\n0\n0\n-5\n1\n1\n")
    opened = {}
    for name in files:
        try:
            with open_scan(folder / name) as reader:
                opened[name] = reader.read(*EVERYTHING)
                assert reader.embedded.place is not None
                assert reader.embedded.place.transform == (5.0, 0.0, -1.5, 0.0, -5.0, 3.5)
                assert f"{name}.aux.xml beside it (not read)" in reader.info.metadata["dropped"]
        except ScanError:
            continue
    assert set(opened) == {"gml.jp2", "xmp.jp2"}
    for picture in opened.values():
        np.testing.assert_array_equal(picture, soft((64, 64), 1))
    assert not asked
    touched = secret.stat().st_atime
    control.read_bytes()
    if control.stat().st_atime != 0:
        assert touched == 0


def test_the_server_of_that_test_would_have_noticed(requests: tuple[int, list[str]]) -> None:
    port, asked = requests
    with pytest.raises(rasterio.errors.RasterioIOError):
        rasterio.open(f"/vsicurl/http://127.0.0.1:{port}/secret.png")
    assert asked


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b"", b""),
        (b"ExternalRasterDMS", b"externalRasterDMS"),
        (b"ExternalRasterDMS", b"EXTERNALRASTERDMS"),
        (b"ExternalRasterDMS", b"Somewhere.RasterX"),
        (b"ImgExternalRaster", b"imgexternalRASTER"),
        (b"ImgExternalRaster", b"Edms_State\0\0\0\0\0\0\0"),
    ],
)
def test_pixels_in_another_file_are_refused(tmp_path: Path, was: bytes, becomes: bytes) -> None:
    """However their node is written: GDAL takes capitals and small letters for the same."""
    unplaced(tmp_path / "s.img", soft((64, 64), 1), "HFA", USE_SPILL="YES")
    assert (tmp_path / "s.ige").exists()
    data = (tmp_path / "s.img").read_bytes()
    at = data.rindex(b"ExternalRasterDMS") + (64 if was.startswith(b"Img") else 0)
    assert data[at : at + len(was)] == was
    (tmp_path / "s.img").write_bytes(data[:at] + becomes + data[at + len(was) :])
    with pytest.raises(ScanUnsupportedError, match="other files"):
        open_scan(tmp_path / "s.img")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_overviews_in_another_file_are_not_opened(tmp_path: Path) -> None:
    picture = np.kron(soft((64, 64), 1), np.ones((8, 8), np.uint8))
    unplaced(tmp_path / "o.img", picture, "HFA")
    with warnings.catch_warnings(), rasterio.Env(HFA_USE_RRD="YES"):
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / "o.img", "r+") as file:
            file.build_overviews([2, 4])
    beside = {found.name for found in tmp_path.iterdir()} - {"o.img"}
    assert beside
    assert b"RRDNamesList" in (tmp_path / "o.img").read_bytes()
    with open_scan(tmp_path / "o.img") as reader:
        np.testing.assert_array_equal(reader.read(*EVERYTHING), picture)
        in_use = {found.readlink().name for found in Path("/proc/self/fd").iterdir() if found.is_symlink()}
    assert "o.img" in in_use
    assert not in_use & beside


# Damage and bombs


@pytest.mark.parametrize("name", [*PICTURES, "a.img", "a.ntf"])
def test_cut_or_damaged_files_give_pixels_or_our_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name in PICTURES:
        mode, options = PICTURES[name]
        Image.fromarray(soft(SHAPE_YX, 4)).convert("RGB").convert(mode).save(path, **options)
    else:
        unplaced(path, soft(SHAPE_YX, 1), {"a.img": "HFA", "a.ntf": "NITF"}[name])
    data = path.read_bytes()
    rng = np.random.default_rng(len(name))
    refused = 0
    for trial in range(14):
        damaged = bytearray(data[: int(len(data) * rng.uniform(0.01, 0.9))] if trial % 2 else data)
        for at in rng.integers(0, min(len(damaged), 400), 3 * (1 - trial % 2)):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            with open_scan(path, ReadOptions(limit_pixels=10**6)) as reader:
                assert reader.read(*EVERYTHING).shape[:2] == reader.info.shape_yx
        except ScanError as error:
            refused += str(error).count(str(path))
    assert refused > 0


@pytest.mark.parametrize("name", ["bomb.jp2", "bomb.webp", "bomb.gif", "bomb.bmp", "bomb.pgm"])
def test_what_a_header_declares_is_checked_before_it_is_opened(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(soft((64, 64), 1 if name != "bomb.webp" else 3)).save(path)
    data = bytearray(path.read_bytes())
    at, fields = {
        "bomb.jp2": (data.find(b"\xff\x4f\xff\x51") + 8, struct.pack(">6I", *[60_000] * 2, 0, 0, *[60_000] * 2)),
        "bomb.webp": (data.find(b"VP8 ") + 14, struct.pack("<HH", 16_000, 16_000)),
        "bomb.gif": (data.find(b",\0\0\0\0") + 5, struct.pack("<HH", 60_000, 60_000)),
        "bomb.bmp": (18, struct.pack("<ii", 60_000, 60_000)),
        "bomb.pgm": (3, b"9999 9999 255\n"),
    }[name]
    data[at : at + len(fields)] = fields
    path.write_bytes(data)
    with pytest.raises(ScanUnsupportedError, match="limit"):
        open_scan(path, ReadOptions(limit_pixels=9_000_000))


def test_many_frames_count_together(tmp_path: Path) -> None:
    frame = b",\0\0\0\0" + struct.pack("<HH", 65535, 65535) + b"\0\2\1\0\0"
    data = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0" + frame * 3 + b";"
    (tmp_path / "b.gif").write_bytes(data)
    with pytest.raises(ScanUnsupportedError, match="at once"):
        open_scan(tmp_path / "b.gif")


def test_a_cut_jpeg_2000_gives_what_is_there(tmp_path: Path) -> None:
    picture = np.random.default_rng(4).integers(0, 256, (300, 300), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "t.jp2", tile_size=(100, 100))
    data = (tmp_path / "t.jp2").read_bytes()
    (tmp_path / "t.jp2").write_bytes(data[: len(data) // 2])
    with pytest.raises(ScanUnreadableError):
        read(tmp_path / "t.jp2")
    with open_scan(tmp_path / "t.jp2", ReadOptions(salvage=True)) as reader:
        got = reader.read(*EVERYTHING)
        assert 3 <= len(reader.missing_regions) <= 6
        for hole in reader.missing_regions:
            assert (got[hole.rows, hole.columns] == 127).all()
        np.testing.assert_array_equal(got[:100], picture[:100])


@pytest.mark.parametrize(
    ("name", "mode", "kept"),
    [
        ("g.pgm", "L", range(1979)),
        ("c.ppm", "RGB", range(1979)),
        ("g.bmp", "L", range(21, 2000)),
        ("c.bmp", "RGB", range(21, 2000)),
        ("g.sgi", "L", range(16, 2000)),
    ],
)
def test_all_rows_that_are_there_are_salvaged(tmp_path: Path, name: str, mode: str, kept: range) -> None:
    """BMP and SGI hold the last row first."""
    path = tmp_path / name
    picture = Image.fromarray(np.random.default_rng(4).integers(0, 256, (2000, 200, 3), dtype=np.uint8)).convert(mode)
    picture.save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 99 // 100 if name != "g.sgi" else len(data) - 9])
    with pytest.raises(ScanUnreadableError):
        read(path)
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        got = reader.read(*EVERYTHING)
        lost = {row for hole in reader.missing_regions for row in range(hole.y0, hole.y1)}
        assert len(reader.missing_regions) == 1  # of many rows, not many of one
    assert lost == set(range(2000)) - set(kept)
    np.testing.assert_array_equal(got[kept], np.asarray(picture)[kept])
    assert (got[sorted(lost)] == 127).all()


def test_rows_that_are_lost_do_not_keep_others_from_being_stretched(tmp_path: Path) -> None:
    picture = np.arange(200 * 128, dtype=np.int16).reshape(200, 128)
    unplaced(tmp_path / "a.ntf", picture, "NITF")
    data = (tmp_path / "a.ntf").read_bytes()
    (tmp_path / "a.ntf").write_bytes(data[:-2000])  # 8 rows
    with pytest.raises(ScanUnreadableError):
        open_scan(tmp_path / "a.ntf")
    with open_scan(tmp_path / "a.ntf", ReadOptions(salvage=True)) as reader:
        got = reader.read(*EVERYTHING)
    assert (got[192:] == 32767).all()
    np.testing.assert_array_equal(got[:192], np.rint(picture[:192] * (65535 / picture[191, 127])))


def test_a_list_of_tiles_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """Some hundred bytes that declare 190,000 tiles: OpenJPEG would make room for each before it decodes any."""
    data = bytearray(cv2.imencode(".jp2", np.zeros((40, 50), np.uint8))[1].tobytes())
    at = data.index(b"\xff\x4f\xff\x51") + 8
    data[at : at + 8] = struct.pack(">2I", 20_000, 15_000)
    data[at + 16 : at + 24] = struct.pack(">2I", 40, 40)
    header = data.index(b"ihdr") + 4
    data[header : header + 8] = struct.pack(">2I", 15_000, 20_000)
    (tmp_path / "a.jp2").write_bytes(data)
    with pytest.raises(ScanUnsupportedError, match="187500 tiles"):
        open_scan(tmp_path / "a.jp2")


@pytest.mark.parametrize(
    ("name", "mode", "missing"), [("a.gif", "P", 1), ("a.gif", "P", 2), ("a.bmp", "RGB", 2), ("a.bmp", "L", 2)]
)
def test_what_lacks_only_what_follows_its_pixels_is_whole(tmp_path: Path, name: str, mode: str, missing: int) -> None:
    """The trailer of a GIF, and what fills up the last row of a BMP."""
    path = tmp_path / name
    Image.fromarray(soft((90, 130), 3)).convert(mode).save(path)
    whole, _ = read(path)
    data = path.read_bytes()
    path.write_bytes(data[:-missing])
    got, info = read(path)
    np.testing.assert_array_equal(got, whole)
    assert len(info.metadata.get("dropped", ())) == (name == "a.gif")
    path.write_bytes(data[: -missing - 3])
    with pytest.raises(ScanUnreadableError):
        read(path)


@pytest.mark.parametrize("ending", ["jp2", "j2k"])
def test_a_jpeg_2000_without_its_end_marker_loses_nothing_in_salvage(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    picture = soft((90, 130), 3)
    data = imagecodecs.jpeg2k_encode(picture, level=0, codecformat=ending)
    path.write_bytes(data[:-2])
    with pytest.raises(ScanUnreadableError):
        read(path)
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        np.testing.assert_array_equal(reader.read(*EVERYTHING), picture)
        assert not reader.missing_regions


def test_channels_of_jpeg_2000_in_another_order(tmp_path: Path) -> None:
    """Blue, green, opacity and red, as the box of channel definitions has it."""
    rgb = soft(SHAPE_YX, 3)
    stored = np.dstack([rgb[:, :, 2], rgb[:, :, 1], rgb[::-1, :, 0], rgb[:, :, 0]])
    definitions = b"".join(struct.pack(">3H", *each) for each in ((0, 0, 3), (1, 0, 2), (2, 1, 0), (3, 0, 1)))
    path = tmp_path / "a.jp2"
    path.write_bytes(jp2_with(stored, header=box(b"cdef", struct.pack(">H", 4) + definitions)))
    got, info = read(path)
    np.testing.assert_array_equal(got, rgb)
    assert info.mask == "alpha"
    with open_scan(path) as reader:
        np.testing.assert_array_equal(reader.read_mask(*EVERYTHING), stored[:, :, 2])


@pytest.mark.parametrize("order", [(2, 1, 0), (0, 1, 2), (1, 0, 2)])
def test_masks_of_a_bmp_say_which_byte_is_which(tmp_path: Path, order: tuple[int, ...]) -> None:
    rgb = soft(SHAPE_YX, 3)
    stored = np.zeros((*SHAPE_YX, 4), np.uint8)
    for channel, at in enumerate(order):
        stored[:, :, at] = rgb[:, :, channel]
    masks = struct.pack("<3I", *(0xFF << 8 * at for at in order))
    head = struct.pack("<IiiHHIIiiII", 40, 130, -90, 1, 32, 3, stored.size, 0, 0, 0, 0) + masks
    path = tmp_path / "a.bmp"
    path.write_bytes(
        b"BM" + struct.pack("<III", 14 + len(head) + stored.size, 0, 14 + len(head)) + head + stored.tobytes()
    )
    np.testing.assert_array_equal(read(path)[0], rgb)
    path.write_bytes(path.read_bytes().replace(masks, struct.pack("<3I", 0xFF000000, 0xFF0000, 0xFF00)))
    with pytest.raises(ScanUnsupportedError, match="masks FF000000, 00FF0000, 0000FF00"):
        read(path)


@pytest.mark.parametrize("bits", [1, 8, 24])
def test_a_bmp_of_os2(tmp_path: Path, bits: int) -> None:
    rgb = soft(SHAPE_YX, 3)
    table = b"" if bits == 24 else np.arange(2**bits)[:, None].repeat(3, 1).astype(np.uint8).tobytes()
    expected = rgb if bits == 24 else rgb[:, :, 0] >> (8 - bits)
    row = rgb[:, :, ::-1].reshape(90, -1) if bits == 24 else np.packbits(expected, axis=1) if bits == 1 else expected
    body = b"".join(line.tobytes() + bytes(-len(line) % 4) for line in row[::-1])
    head = struct.pack("<IHHHH", 12, 130, 90, 1, bits) + table
    path = tmp_path / "a.bmp"
    path.write_bytes(b"BM" + struct.pack("<III", 14 + len(head) + len(body), 0, 14 + len(head)) + head + body)
    np.testing.assert_array_equal(read(path)[0], expected)
