"""JPEG XL, AVIF and JPEG-LS: the samples that other decoders give, what is said beside them, and damage."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import ScanError, ScanUnreadableError, ScanUnsupportedError
from pipeline.readers import open_scan
from pipeline.types import ReadOptions, ScanInfo
from tests.pipeline.test_readers_image import EXIF_BLOCK, XMP, lightness_of, linear_profile, soft

pytestmark = pytest.mark.filterwarnings("error", "ignore:'mode' parameter:DeprecationWarning")

EVERYTHING = slice(None), slice(None)
SHAPE_YX = 90, 130


def read(path: Path, **reading: Any) -> tuple[NDArray[Any], ScanInfo]:
    with open_scan(path, ReadOptions(**reading)) as reader:
        whole = reader.read(*EVERYTHING)
        np.testing.assert_array_equal(reader.read(slice(7, 60), slice(9, 400)), whole[7:60, 9:400])
        return whole, reader.info


@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize(
    ("dtype", "channels", "bits"),
    [("uint8", 1, 8), ("uint8", 3, 8), ("uint8", 4, 8), ("uint16", 1, 16), ("uint16", 3, 12), ("uint16", 1, 10)],
)
@pytest.mark.parametrize("shape_yx", [SHAPE_YX, (64, 128), (700, 600)])
def test_lossless_jpeg_xl_gives_the_samples_back(
    tmp_path: Path, shape_yx: tuple[int, int], dtype: str, channels: int, bits: int, container: bool
) -> None:
    picture = np.random.default_rng(1).integers(0, 2**bits, (*shape_yx, channels), dtype)
    stored = picture[:, :, 0] if channels == 1 else picture
    options = {"bitspersample": bits} if bits not in (8, 16) else {}
    data = imagecodecs.jpegxl_encode(stored, lossless=True, usecontainer=container, effort=1, **options)
    (tmp_path / "a.jxl").write_bytes(data)
    got, info = read(tmp_path / "a.jxl")
    assert (info.depth, info.mask) == (dtype, "alpha" if channels == 4 else "")
    if bits == 8:
        np.testing.assert_array_equal(got, stored if channels < 4 else stored[:, :, :3])
        assert info.tone == "srgb"
    else:  # libjxl's word, through imagecodecs: samples of more than 8 bits are light itself
        light = picture / (2**bits - 1)
        luminance = light[:, :, 0] if channels == 1 else light @ [0.2126, 0.7152, 0.0722]
        assert np.abs(got / 655.35 - lightness_of(luminance)).max() < 0.02
        assert info.tone == "lightness"
    if channels == 4:
        with open_scan(tmp_path / "a.jxl") as reader:
            np.testing.assert_array_equal(reader.read_mask(*EVERYTHING), picture[:, :, 3])


def test_lossy_jpeg_xl_and_avif_are_near_the_picture(tmp_path: Path) -> None:
    picture = soft(SHAPE_YX)
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(picture, level=95))
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(picture, level=95))
    for name in ("a.jxl", "a.avif"):
        got, info = read(tmp_path / name)
        assert np.abs(got.astype(int) - picture).mean() < 3
        assert info.metadata["format"] == {"a.jxl": "JPEG XL", "a.avif": "AVIF"}[name]
    with Image.open(tmp_path / "a.avif") as image:
        assert np.abs(got.astype(int) - np.asarray(image)).max() <= 2


def test_floats_of_jpeg_xl_are_shares_of_full_scale(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).random(SHAPE_YX).astype(np.float32)
    (tmp_path / "f.jxl").write_bytes(imagecodecs.jpegxl_encode(picture, lossless=True))
    got, info = read(tmp_path / "f.jxl")
    assert info.dtype == "uint16"
    assert "float32" in info.metadata["lightness"]
    decoded = imagecodecs.jpegxl_decode((tmp_path / "f.jxl").read_bytes())
    if info.tone == "srgb":
        np.testing.assert_array_equal(got, np.rint(decoded.astype(np.float64) * 65535))
    else:  # what the encoder marked as linear
        assert np.abs(got / 655.35 - lightness_of(decoded.astype(np.float64))).max() < 0.3


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def test_boxes_of_jpeg_xl_are_carried(tmp_path: Path) -> None:
    data = imagecodecs.jpegxl_encode(soft(SHAPE_YX), lossless=True, usecontainer=True)
    more = box(b"Exif", b"\0\0\0\0" + EXIF_BLOCK) + box(b"xml ", XMP % b"") + box(b"brob", b"xml abcd")
    (tmp_path / "b.jxl").write_bytes(data + more)
    with open_scan(tmp_path / "b.jxl") as reader:
        np.testing.assert_array_equal(reader.read(*EVERYTHING), soft(SHAPE_YX))
        assert reader.embedded.exif == EXIF_BLOCK
        assert reader.embedded.xmp == XMP % b""
        metadata = reader.info.metadata
    assert metadata["resolution"] == [118.0, 118.0, "cm"]
    assert metadata["orientation"] == 1  # the codestream's own
    assert metadata["dropped"] == ["'xml' box (compressed)"]


def test_avif_alpha_depth_and_profile(tmp_path: Path) -> None:
    rgba = soft(SHAPE_YX, 4)
    Image.fromarray(rgba).save(tmp_path / "a.avif", quality=90)
    with open_scan(tmp_path / "a.avif") as reader, Image.open(tmp_path / "a.avif") as image:
        assert reader.info.mask == "alpha"
        difference = reader.read_mask(*EVERYTHING).astype(int) - np.asarray(image)[:, :, 3]
    assert np.abs(difference).max() <= 2
    ten = soft(SHAPE_YX).astype(np.uint16) * 4
    (tmp_path / "t.avif").write_bytes(imagecodecs.avif_encode(ten, level=100, bitspersample=10))
    got, info = read(tmp_path / "t.avif")
    assert info.dtype == "uint16"
    assert np.abs(got / 65535 * 1023 - ten).max() <= 8
    gray = soft(SHAPE_YX, 1)
    Image.fromarray(gray).convert("RGB").save(tmp_path / "p.avif", quality=100, icc_profile=linear_profile())
    got, info = read(tmp_path / "p.avif")
    assert any("ICC profile" in each for each in info.metadata["dropped"])  # of gray, for RGB samples


@pytest.mark.parametrize(("bits", "channels"), [(8, 1), (8, 3), (12, 1), (16, 1)])
def test_jpeg_ls_gives_the_samples_back(tmp_path: Path, bits: int, channels: int) -> None:
    dtype = "uint8" if bits == 8 else "uint16"
    picture = (soft(SHAPE_YX, channels).astype(np.uint32) * (2**bits - 1) // 255).astype(dtype)
    data = imagecodecs.jpegls_encode(picture)
    stored_bits = data[data.index(b"\xff\xf7") + 4]
    (tmp_path / "a.jls").write_bytes(data)
    got, info = read(tmp_path / "a.jls")
    expected = np.rint(picture * (np.iinfo(dtype).max / (2**stored_bits - 1))).astype(dtype)
    np.testing.assert_array_equal(got, expected)
    assert info.metadata["format"] == "JPEG-LS"


@pytest.mark.parametrize("name", ["a.jxl", "a.avif", "a.jls"])
def test_damage_gives_pixels_or_our_error(tmp_path: Path, name: str) -> None:
    picture = soft(SHAPE_YX, 1)
    encode = {
        "a.jxl": lambda: imagecodecs.jpegxl_encode(picture, lossless=True),
        "a.avif": lambda: imagecodecs.avif_encode(np.dstack([picture] * 3)),
        "a.jls": lambda: imagecodecs.jpegls_encode(picture),
    }[name]
    data = encode()
    rng = np.random.default_rng(3)
    refused = 0
    for trial in range(30):
        damaged = bytearray(data[: int(len(data) * rng.uniform(0.02, 0.98))] if trial % 2 else data)
        for at in rng.integers(4, min(len(damaged), 300), 3 * (1 - trial % 2)):
            damaged[at] = rng.integers(0, 256)
        (tmp_path / name).write_bytes(damaged)
        try:
            with open_scan(tmp_path / name, ReadOptions(limit_pixels=10**6)) as reader:
                assert reader.read(*EVERYTHING).shape[:2] == reader.info.shape_yx
        except ScanError as error:
            refused += "\n" not in str(error) and str(tmp_path / name) in str(error)
    assert refused >= 10


def test_what_a_header_declares_is_checked_before_it_is_decoded(tmp_path: Path) -> None:
    # 2 ** 30 by 2 ** 30 pixels of default kind, by annex D of ISO/IEC 18181-1
    bits = [0, 1, 1, *[1] * 30, 0, 0, 0, 1, 1, *[1] * 30, 1]
    packed = np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()
    (tmp_path / "b.jxl").write_bytes(b"\xff\x0a" + packed + bytes(50))
    with pytest.raises(ScanUnsupportedError, match="1073741824 x 1073741824"):
        open_scan(tmp_path / "b.jxl")
    data = bytearray(imagecodecs.avif_encode(soft(SHAPE_YX)))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", 15_000, 15_000)
    (tmp_path / "b.avif").write_bytes(data)
    with pytest.raises(ScanUnsupportedError, match="at once"):
        open_scan(tmp_path / "b.avif")


def jls_header(height: int, width: int, bits: int, channels: int) -> bytes:
    """Of ITU-T T.87, C.2.2, and nothing behind it but the end marker."""
    components = b"".join(bytes([n + 1, 0x11, 0]) for n in range(channels))
    frame = struct.pack(">BHHB", bits, height, width, channels) + components
    return b"\xff\xd8\xff\xf7" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


@pytest.mark.parametrize(
    ("bits", "channels", "most_pixels"), [(8, 1, 2**27), (8, 3, 2**27), (12, 1, 2**27), (16, 3, 2**29 // 6)]
)
def test_half_a_gibibyte_is_decoded_at_once_and_not_more(
    tmp_path: Path, bits: int, channels: int, most_pixels: int
) -> None:
    path, width = tmp_path / "a.jls", 60_000
    path.write_bytes(jls_header(most_pixels // width + 1, width, bits, channels))
    with pytest.raises(ScanUnsupportedError, match=r"at once.* 536870912 .*convert it to TIFF"):
        open_scan(path)
    path.write_bytes(jls_header(most_pixels // width, width, bits, channels))
    with pytest.raises(ScanUnreadableError, match="damaged JPEG-LS"):  # by the decoder
        open_scan(path)


@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_ls_without_its_end_marker_is_whole(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "a.jls"
    picture = soft((90, 130), 1)
    data = imagecodecs.jpegls_encode(picture)
    path.write_bytes(data[:-missing])
    got, info = read(path)
    np.testing.assert_array_equal(got, picture)
    assert len(info.metadata["dropped"]) == 1
    path.write_bytes(data[:-9])
    with pytest.raises(ScanUnreadableError):
        read(path)
