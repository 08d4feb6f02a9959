"""TIFFs of every kind of sample become what the plain formulas, or another program, make of them."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray
from PIL import Image
from rasterio.windows import Window

from pipeline.errors import ScanError, ScanUnreadableError, ScanUnsupportedError
from pipeline.readers import open_scan, page_count
from pipeline.readers._tiff.embedded import check_embedded_size
from pipeline.types import ReadOptions, ScanInfo

pytestmark = pytest.mark.filterwarnings("error")

SHAPE = 61, 47
WHOLE = slice(None), slice(None)
PLACE = {"crs": "EPSG:3857", "transform": rasterio.Affine(2, 0, 0, 0, -2, 0)}


def noise(dtype: str, channels: int = 1, low: float | None = None, high: float | None = None) -> NDArray[Any]:
    """Numbers between two others, both of which occur; by default all that there are."""
    shape = SHAPE if channels == 1 else (*SHAPE, channels)
    rng = np.random.default_rng(5)
    if np.dtype(dtype).kind == "f":
        picture = rng.uniform(low or 0, 1 if high is None else high, shape).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        ends = limits.min if low is None else low, limits.max if high is None else high
        picture = rng.integers(*ends, shape, dtype=dtype, endpoint=True)
    picture[0, 0], picture[-1, -1] = (picture.min() if low is None else low), (picture.max() if high is None else high)
    return picture


def read(path: Path, **options: Any) -> tuple[ScanInfo, NDArray[Any], NDArray[Any] | None]:
    with open_scan(path, ReadOptions(**options)) as reader:
        info, samples = reader.info, reader.read(*WHOLE)
        np.testing.assert_array_equal(reader.read(slice(7, 40), slice(9, 46)), samples[7:40, 9:46])
        mask = reader.read_mask(*WHOLE) if info.mask else None
        if mask is not None:
            np.testing.assert_array_equal(reader.read_mask(slice(7, 40), slice(9, 46)), mask[7:40, 9:46])
            assert mask.dtype == info.result_dtype
    assert samples.dtype == info.dtype
    assert samples.shape == (*info.shape_yx, *((3,) if info.channels == 3 else ()))
    return info, samples, mask


def refused(path: Path, kind: type[ScanError], *words: str, **options: Any) -> None:
    with pytest.raises(ScanError) as caught:
        read(path, **options)
    assert isinstance(caught.value, kind), caught.value
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(str(path)) == 1
    for word in words:
        assert word in str(caught.value)


# Numbers of other types


@pytest.mark.parametrize(
    ("dtype", "low", "high", "black", "white"),
    [
        ("int8", -100, 90, -100, 90),
        ("int16", -100, 9000, -100, 9000),
        ("int32", -100, 9000, -100, 9000),
        ("uint32", 5, 3_000_000_000, 5, 3_000_000_000),
        ("int64", -(2**62), 2**62, -(2**62), 2**62),
        ("uint64", 2**63, 2**63 + 40_000, 2**63, 2**63 + 40_000),
        ("float16", 0.25, 0.75, 0, 1),
        ("float32", 0.1, 0.5, 0, 1),
        ("float32", -3.25, 811.5, -3.25, 811.5),
        ("float64", -1e-6, 1e300, -1e-6, 1e300),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_other_numbers_are_mapped_linearly(
    tmp_path: Path, dtype: str, low: float, high: float, black: float, white: float, channels: int
) -> None:
    picture = noise(dtype, channels, low, high)
    options: dict[str, Any] = {"photometric": "rgb" if channels == 3 else "minisblack"}
    tifffile.imwrite(tmp_path / "n.tif", picture, tile=(16, 32), compression="zlib", **options)
    info, samples, mask = read(tmp_path / "n.tif")
    top = 255 if dtype == "int8" else 65535
    exact = picture.astype(object) if np.dtype(dtype).kind in "ui" else picture.astype(np.float64)
    expected = np.vectorize(lambda value: round((value - black) * top / (white - black)))(exact)
    np.testing.assert_allclose(samples.astype(np.int64), expected.astype(np.int64), atol=1)
    assert info.depth == info.dtype == ("uint8" if dtype == "int8" else "uint16")
    assert mask is None
    assert info.metadata["lightness"].endswith("were mapped linearly to black and white")
    assert f"from {black:.6g} to {white:.6g} " in info.metadata["lightness"]


@pytest.mark.parametrize(
    ("driver", "dtype"),
    [*itertools.product(("GTiff", "HFA"), ("int8", "int16", "int32")), ("NITF", "int16"), ("NITF", "int32")],
)
def test_signed_integers_are_stretched_alike_in_every_format(tmp_path: Path, driver: str, dtype: str) -> None:
    picture = noise(dtype, low=0, high=100)
    options = {"driver": driver, "height": SHAPE[0], "width": SHAPE[1], "count": 1, "dtype": dtype}
    with warnings.catch_warnings(action="ignore"):
        dataset = rasterio.open(tmp_path / "s", "w", **options)
    with dataset:
        dataset.write(picture, 1)
    info, samples, _ = read(tmp_path / "s")
    top = np.iinfo(samples.dtype).max
    np.testing.assert_array_equal(samples, np.rint(picture / 100 * top).astype(samples.dtype))
    assert "0 to 100" in info.metadata["lightness"]


def test_white_is_zero_and_declared_ends(tmp_path: Path) -> None:
    picture = noise("float32", 1, 10, 20)
    ends = [(340, "f", 1, 5.0, True), (341, "f", 1, 25.0, True)]
    tifffile.imwrite(tmp_path / "w.tif", picture, photometric="miniswhite", extratags=ends)
    info, samples, _ = read(tmp_path / "w.tif")
    np.testing.assert_allclose(samples, 65535 * (1 - (picture - 5) / 20), atol=1)
    assert "from 5 to 25 were mapped linearly to white and black" in info.metadata["lightness"]


@pytest.mark.parametrize("nodata", [None, 7])
def test_finding_the_range_holds_little_more_than_one_segment(tmp_path: Path, nodata: int | None) -> None:
    path, rows = tmp_path / "r.tif", 2048
    picture = np.tile(noise("int32", low=-9, high=98).astype(np.float32), (70, 135))[
        : 2 * rows, :6300
    ]  # more than is kept
    picture[5, 7] = np.nan
    extra = [] if nodata is None else [(42113, 2, 0, str(nodata), True)]
    tifffile.imwrite(path, picture, compression="zlib", metadata=None, extratags=extra, rowsperstrip=rows)
    tracemalloc.start()
    try:
        with open_scan(path) as reader:
            assert "from -9 to 98" in reader.info.metadata["lightness"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * (picture.nbytes + path.stat().st_size) / 2


@pytest.mark.parametrize(("byteorder", "side"), [("<", 12_000), (">", 9_000)])
def test_a_range_that_only_much_memory_could_find_is_refused(tmp_path: Path, byteorder: Any, side: int) -> None:
    path, row = tmp_path / "r.tif", np.zeros((1, side), np.float32)
    tifffile.imwrite(path, row, compression="zlib", metadata=None, byteorder=byteorder)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for code in (257, 278):
            file.pages[0].tags[code].overwrite(side)
    refused(path, ScanUnsupportedError, "to find their range; rewrite it in tiles")


def test_a_constant_picture_is_gray_and_24_bits_keep_their_range(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "c.tif", np.full(SHAPE, 7.5, np.float32))
    info, samples, _ = read(tmp_path / "c.tif")
    assert (samples == 32767).all()
    assert "all 7.5" in info.metadata["lightness"]
    values = noise("uint8", 1, 20, 190)
    packed = np.repeat(values, 3, axis=1).tobytes()  # the same in either byte order
    (tmp_path / "d.tif").write_bytes(bare_tiff(*SHAPE, {258: 24}, packed))
    np.testing.assert_allclose(read(tmp_path / "d.tif")[1], values / 255 * 65535, atol=1)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_differences_of_odd_depths_wrap_at_their_own_depth(tmp_path: Path, bits: int) -> None:
    """TIFF 6.0, section 14: the predictor's arithmetic is that of the depth."""
    top = 2**bits - 1
    values = noise("uint16", 1, 0, top)[:, :40]
    differences = np.diff(values, axis=1, prepend=np.uint16(0)) & np.uint16(top)
    digits = np.unpackbits(differences.astype(">u2").view(np.uint8).reshape(-1, 40, 2), axis=2)[:, :, 16 - bits :]
    data = zlib.compress(np.packbits(digits.reshape(SHAPE[0], -1), axis=1).tobytes())
    (tmp_path / "d.tif").write_bytes(bare_tiff(SHAPE[0], 40, {258: bits, 259: 8, 317: 2}, data))
    np.testing.assert_array_equal(read(tmp_path / "d.tif")[1], np.rint(values * (65535 / top)))


def test_what_is_no_number_is_no_picture(tmp_path: Path) -> None:
    picture = noise("float32", 1, -5, 5)
    picture[3, 4], picture[5, 6], picture[7, 8] = np.nan, np.inf, -np.inf
    tifffile.imwrite(tmp_path / "n.tif", picture)
    info, samples, mask = read(tmp_path / "n.tif")
    assert mask is not None
    np.testing.assert_array_equal(mask == 65535, np.isfinite(picture))
    np.testing.assert_array_equal(mask == 0, ~np.isfinite(picture))
    assert (info.mask, info.nodata) == ("nodata", 0)
    there = np.isfinite(picture)
    np.testing.assert_allclose(samples[there], (picture[there] + 5) * 6553.5, atol=1)


# Opacity and no-data


@pytest.mark.parametrize(("dtype", "channels", "nodata"), [("uint8", 1, 255), ("uint16", 3, 0), ("int16", 1, -9999)])
def test_nodata_is_where_gdal_says(tmp_path: Path, dtype: str, channels: int, nodata: int) -> None:
    picture = noise(dtype, channels)
    picture[10:20, 5:9] = nodata
    picture[30, 30, ...] = nodata
    write_by_gdal(tmp_path / "n.tif", picture, nodata=nodata, tiled=True, blockxsize=16, blockysize=16)
    info, _, mask = read(tmp_path / "n.tif")
    expected = (picture == nodata).reshape(*SHAPE, -1).all(axis=2)
    np.testing.assert_array_equal(mask == 0, expected)
    assert info.mask == "nodata"
    assert info.nodata == max(nodata, 0)


@pytest.mark.parametrize("nodata", [-3.4e38, float("nan")])
def test_nodata_takes_no_part_in_the_range(tmp_path: Path, nodata: float) -> None:
    picture = noise("float32", 1, 100, 200)
    picture[:9] = nodata
    picture[20, 20], picture[21, 21] = 100, 200
    write_by_gdal(tmp_path / "n.tif", picture, nodata=nodata)
    info, samples, mask = read(tmp_path / "n.tif")
    assert mask is not None
    assert (mask[:9] == 0).all()
    assert (mask[9:] == 65535).all()
    np.testing.assert_allclose(samples[9:], (picture[9:] - 100) * 655.35, atol=1)
    assert info.nodata == 0


def test_missing_tiles_are_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    part = noise("uint8")[:32, :32]
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": "uint8", "nodata": 9} | PLACE
    with rasterio.open(path, "w", **profile, tiled=True, blockxsize=32, blockysize=32, sparse_ok=True) as dataset:
        dataset.write(part, 1, window=Window(32, 0, 32, 32))
    with tifffile.TiffFile(path) as file:
        assert 0 in file.pages.first.databytecounts
    info, samples, mask = read(path)
    assert mask is not None
    assert (info.mask, info.nodata) == ("nodata", 9)
    np.testing.assert_array_equal(samples[:32, 32:], part)
    np.testing.assert_array_equal(mask[:32, 32:] == 0, part == 9)
    mask[:32, 32:] = 0
    assert not mask.any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("planar", [False, True])
def test_premultiplied_colours_are_divided(tmp_path: Path, dtype: str, channels: int, planar: bool) -> None:
    top = np.iinfo(dtype).max
    stored = noise(dtype, channels + 1)
    stored[..., :channels] = np.minimum(stored[..., :channels], stored[..., channels:])
    options = {"planarconfig": "separate" if planar else "contig", "rowsperstrip": 9}
    written = np.moveaxis(stored, 2, 0) if planar else stored
    photometric = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", written, photometric=photometric, extrasamples=["assocalpha"], **options)
    info, samples, mask = read(tmp_path / "a.tif")
    alpha = stored[..., channels].astype(np.float64)
    expected = stored[..., :channels] * (top / np.maximum(alpha, 1)[..., None])
    np.testing.assert_allclose(samples.reshape(*SHAPE, channels), expected, atol=0.51)
    np.testing.assert_array_equal(mask, stored[..., channels])
    assert (info.mask, info.nodata) == ("alpha", None)
    assert "premultiplied" in info.metadata["lightness"]


@pytest.mark.parametrize("eight_bit", [False, True])
def test_a_mask_page_is_opacity(tmp_path: Path, eight_bit: bool) -> None:
    path, picture = tmp_path / "m.tif", noise("uint16", 3)
    inside = noise("uint8") if eight_bit else (noise("uint8") > 99).astype(np.uint8) * 255
    if eight_bit:
        with tifffile.TiffWriter(path) as file:
            file.write(picture, photometric="rgb")
            file.write(picture[::2, ::2], photometric="rgb", subfiletype=1)
            file.write(inside, subfiletype=1)
        mark_as_masks(path, [2])
    else:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            write_by_gdal(path, picture, mask=inside)
    info, samples, mask = read(path)
    np.testing.assert_array_equal(samples, picture)
    np.testing.assert_array_equal(mask, inside.astype(np.uint16) * 257)
    assert info.mask == "alpha"
    assert page_count(path) == 1


def test_a_fourth_band_that_gdal_calls_undefined_is_no_opacity(tmp_path: Path) -> None:
    """As in aerial photographs, whose fourth band is near infrared."""
    path, picture = tmp_path / "b.tif", noise("uint8", 4)
    said = "".join(f'<Item name="COLORINTERP" sample="{n}" role="colorinterp">Undefined</Item>' for n in range(1, 4))
    said = f"<GDALMetadata>{said}</GDALMetadata>"
    tifffile.imwrite(path, picture, photometric="rgb", extrasamples=["unassalpha"], extratags=[(42112, 2, 0, said)])
    info, samples, mask = read(path)
    np.testing.assert_array_equal(samples, picture[:, :, :3])
    assert mask is None
    assert info.metadata["dropped"] == ["1 extra channel"]


@pytest.mark.parametrize("channels", [5, 7])
def test_extra_channels_of_rgb_are_listed(tmp_path: Path, channels: int) -> None:
    picture = noise("uint8", channels)
    tifffile.imwrite(tmp_path / "x.tif", picture, photometric="rgb", planarconfig="contig")
    info, samples, _ = read(tmp_path / "x.tif")
    np.testing.assert_array_equal(samples, picture[:, :, :3])
    assert info.metadata["dropped"] == [f"{channels - 3} extra channels"]


# Other colours


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("planar", [False, True])
def test_cmyk_without_a_profile(tmp_path: Path, dtype: str, planar: bool) -> None:
    inks = noise(dtype, 4)
    stored = np.moveaxis(inks, 2, 0) if planar else inks
    config = "separate" if planar else "contig"
    tifffile.imwrite(tmp_path / "c.tif", stored, photometric="separated", planarconfig=config)
    info, samples, _ = read(tmp_path / "c.tif")
    top = np.iinfo(dtype).max
    unit = inks / top
    np.testing.assert_allclose(samples, top * (1 - unit[..., :3]) * (1 - unit[..., 3:]), atol=0.51)
    assert "CMYK without a profile" in info.metadata["lightness"]


@pytest.mark.parametrize("compression", ["jpeg", "tiff_lzw"])
def test_cmyk_is_as_light_as_pillow_says(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "c.tif"
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    Image.fromarray(smooth).convert("CMYK").save(path, compression=compression)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(read(path)[1] - expected).max() <= 1


def test_lab_keeps_its_own_lightness(tmp_path: Path) -> None:
    lab = noise("uint8", 3)
    Image.frombytes("LAB", SHAPE[::-1], lab.tobytes()).save(tmp_path / "cie.tif")
    info, samples, _ = read(tmp_path / "cie.tif")
    assert (info.tone, info.dtype, info.depth, info.channels) == ("lightness", "uint16", "uint8", 1)
    with Image.open(tmp_path / "cie.tif") as image:
        np.testing.assert_allclose(samples / 655.35, np.asarray(image)[:, :, 0] / 2.55, atol=1e-3)
    lab16 = noise("uint16", 3, 0, 65280)
    for photometric, top in ((8, 65535), (9, 65280), (10, 65535)):
        stored = lab16.astype("<u2").tobytes()
        tags = {258: (16, 16, 16), 262: photometric, 277: 3}
        (tmp_path / "16.tif").write_bytes(bare_tiff(*SHAPE, tags, stored))
        info, samples, _ = read(tmp_path / "16.tif")
        np.testing.assert_allclose(samples / 655.35, lab16[:, :, 0] * (100 / top), atol=1e-3)
        assert info.depth == "uint16"


@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4)])
def test_ycbcr_without_jpeg(tmp_path: Path, down: int, across: int) -> None:
    """TIFF 6.0, section 21: units of luma, then one sample of each chroma, each repeated over its unit."""
    height, width = 64, 48
    rng = np.random.default_rng(1)
    luma = rng.integers(60, 190, (height, width), dtype=np.uint8)
    chroma = rng.integers(100, 156, (height // down, width // across, 2), dtype=np.uint8)
    units = luma.reshape(height // down, down, width // across, across).swapaxes(1, 2)
    stored = np.concatenate([units.reshape(*chroma.shape[:2], -1), chroma], axis=2).tobytes()
    white = struct.pack("<12I", 0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)
    tags = {258: (8, 8, 8), 262: 6, 277: 3, 530: (across, down), 532: white}
    path = tmp_path / "y.tif"
    path.write_bytes(bare_tiff(height, width, tags, stored))
    blue, red = (chroma.repeat(down, 0).repeat(across, 1).astype(float) - 128).transpose(2, 0, 1)
    r, b = luma + red * (2 - 2 * 0.299), luma + blue * (2 - 2 * 0.114)
    g = (luma - 0.299 * r - 0.114 * b) / 0.587
    _, samples, _ = read(path)
    assert np.abs(samples - np.clip(np.dstack([r, g, b]), 0, 255)).max() <= 2


@pytest.mark.parametrize("broken", [False, True])
def test_an_rgb_profile_gives_lightness(tmp_path: Path, broken: bool) -> None:
    """A profile with sRGB's primaries and linear light: luminance is the plain weighted sum."""
    primaries = (0.64, 0.33, 1, 0.30, 0.60, 1, 0.15, 0.06, 1)
    icc = bytes(imagecodecs.cms_profile("rgb", whitepoint=(0.3127, 0.3290, 1), primaries=primaries, gamma=1.0))
    picture = noise("uint16", 3)
    icc = icc[:90] if broken else icc
    tifffile.imwrite(tmp_path / "p.tif", picture, photometric="rgb", iccprofile=icc)
    info, samples, _ = read(tmp_path / "p.tif")
    if broken:
        np.testing.assert_array_equal(samples, picture)
        assert any(left.startswith("ICC profile (") for left in info.metadata["dropped"])
        return
    y = picture / 65535 @ np.array([0.2126, 0.7152, 0.0722])
    lightness = np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)
    np.testing.assert_allclose(samples / 655.35, lightness, atol=0.1)
    assert (info.tone, info.channels, info.depth) == ("lightness", 1, "uint16")
    assert "ICC profile" in info.metadata["lightness"]
    assert "dropped" not in info.metadata


@pytest.mark.parametrize(("name", "gamma"), [("gray", 1.8), ("adobergb", 563 / 256)])
def test_a_gray_picture_with_a_profile_of_gray_or_of_a_screen(tmp_path: Path, name: str, gamma: float) -> None:
    icc = imagecodecs.cms_profile(name, gamma=gamma) if name == "gray" else imagecodecs.cms_profile(name)
    picture = noise("uint8")
    tifffile.imwrite(tmp_path / "g.tif", picture, photometric="miniswhite", iccprofile=bytes(icc))
    info, samples, _ = read(tmp_path / "g.tif")
    y = (1 - picture / 255) ** gamma
    lightness = np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)
    np.testing.assert_allclose(samples / 655.35, lightness, atol=0.03)
    assert (info.tone, info.channels, info.depth) == ("lightness", 1, "uint8")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("alpha", [False, True])
def test_inks_by_their_profile(tmp_path: Path, dtype: str, alpha: bool) -> None:
    inks, extra = noise(dtype, 5 if alpha else 4), ["unassalpha"] if alpha else None
    options: dict[str, Any] = {"photometric": "separated", "planarconfig": "contig", "extrasamples": extra}
    tifffile.imwrite(tmp_path / "c.tif", inks, iccprofile=press_profile(), **options)
    info, samples, mask = read(tmp_path / "c.tif")
    unit = inks / np.iinfo(dtype).max
    np.testing.assert_allclose(samples / 655.35, 100 * (1 - unit[..., 3]) * (1 - 0.4 * unit[..., 0]), atol=0.05)
    assert (info.tone, info.channels, info.depth) == ("lightness", 1, dtype)
    assert info.metadata["lightness"] == "through its ICC profile 'a press'"
    if alpha:
        np.testing.assert_array_equal(mask, inks[..., 4])


def press_profile() -> bytes:
    """ICC.1:2001-04, 6.5.8: a table of 2 x 2 x 2 x 2 colours, where L* is 100 (1 - K) (1 - 0.4 C)."""
    corners = [(255 * (1 - k) * (1 - 0.4 * c), 128, 128) for c in (0, 1) for _ in range(4) for k in (0, 1)]
    matrix = struct.pack(">9i", *(65536 if n % 4 == 0 else 0 for n in range(9)))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + matrix + bytes(range(256)) * 4
    table += bytes(round(value) for corner in corners for value in corner) + bytes(range(256)) * 3
    name = b"desc" + bytes(4) + struct.pack(">I", 8) + b"a press\0" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    elements = {b"desc": name, b"wtpt": white, b"A2B0": table}
    entries, body, at = b"", b"", 128 + 4 + 12 * len(elements)
    for code, element in elements.items():
        entries += code + struct.pack(">II", at + len(body), len(element))
        body += element + bytes(-len(element) % 4)
    head = bytes(8) + struct.pack(">I", 0x02400000) + b"prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    profile = head.ljust(128, b"\0") + struct.pack(">I", len(elements)) + entries + body
    return struct.pack(">I", len(profile)) + profile[4:]


# Pages


def test_pages_are_counted_and_read(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    pictures = [noise("uint8")[number:] for number in range(4)]
    with tifffile.TiffWriter(path) as file:
        file.write(pictures[0][::4, ::4], subfiletype=1)  # a thumbnail comes first
        for picture in pictures:
            file.write(picture, tile=(16, 16))
            file.write(picture[::2, ::2], tile=(16, 16), subfiletype=1)
            file.write(picture, subfiletype=1)
    mark_as_masks(path, range(3, 13, 3))
    assert page_count(path) == 4
    for number, picture in enumerate(pictures, 1):
        info, samples, mask = read(path, page=number)
        np.testing.assert_array_equal(samples, picture)
        np.testing.assert_array_equal(mask, picture)
        assert info.metadata["pages"] == 4
        assert "dropped" not in info.metadata
    for number in (0, 5):
        refused(path, ScanError, f"no page {number}", "1 to 4", page=number)


def test_a_chain_of_pages_that_bites_its_tail(tmp_path: Path) -> None:
    path = tmp_path / "loop.tif"
    tifffile.imwrite(path, np.zeros((2, *SHAPE), np.uint8), photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        offsets = [page.offset for page in file.pages]
    data = bytearray(path.read_bytes())
    at = data.rindex(struct.pack("<I", 0), offsets[1])
    last = offsets[1] + 2 + 12 * struct.unpack_from("<H", data, offsets[1])[0]
    assert at >= last
    data[last : last + 4] = struct.pack("<I", offsets[0])
    path.write_bytes(data)
    assert page_count(path) == 2
    assert read(path, page=2)[1].shape == SHAPE


def test_a_stack_that_imagej_describes_in_words(tmp_path: Path) -> None:
    words = "ImageJ=1.53t\nimages=7\nslices=7\n"
    tifffile.imwrite(tmp_path / "s.tif", noise("uint8"), description=words, metadata=None)
    assert read(tmp_path / "s.tif")[0].metadata["dropped"] == ["ImageJ's slices 2-7"]


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4"])
def test_a_fax_that_does_not_say_what_is_white_is_no_negative(tmp_path: Path, compression: str) -> None:
    page = noise("uint8") > 40
    Image.fromarray(page).save(tmp_path / "f.tif", compression=compression)
    assert "lightness" not in read(tmp_path / "f.tif")[0].metadata
    without(tmp_path / "f.tif", 262)
    info, samples, _ = read(tmp_path / "f.tif")
    with Image.open(tmp_path / "f.tif") as picture:
        np.testing.assert_array_equal(samples, np.asarray(picture) * np.uint8(255))
    assert "0 is white" in info.metadata["lightness"]


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_gray_old_style_jpeg(tmp_path: Path, white_is_zero: bool) -> None:
    picture = np.add.outer(np.arange(64), 2 * np.arange(96)).astype(np.uint8)
    data = bytes(imagecodecs.jpeg_encode(picture, level=98))
    tags = {259: 6, 262: 0 if white_is_zero else 1, 512: 1, 514: len(data)}
    (tmp_path / "o.tif").write_bytes(bare_tiff(64, 96, {**tags, 513: None}, data))
    decoded = np.asarray(imagecodecs.jpeg_decode(data))
    info, samples, _ = read(tmp_path / "o.tif")
    assert info.channels == 1
    np.testing.assert_array_equal(samples, 255 - decoded if white_is_zero else decoded)
    huge = bytes(imagecodecs.jpeg_encode(np.zeros((900, 900), np.uint8)))
    (tmp_path / "h.tif").write_bytes(bare_tiff(64, 96, {**tags, 513: None}, huge))
    refused(tmp_path / "h.tif", ScanUnreadableError, "claims 900 x 900")
    start = data.index(b"\xff\xda")
    (tmp_path / "s.tif").write_bytes(bare_tiff(64, 96, {**tags, 513: None}, data[start:]))
    refused(tmp_path / "s.tif", ScanUnreadableError, "no readable header")


# What is refused, and what is salvaged


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ({262: 32803}, "camera raw"),
        ({262: 34892}, "linear raw"),
        ({262: 32845}, "LogLuv"),
        ({262: 5, 277: 4, 258: (8,) * 4, 332: 2}, "inks"),
        ({277: 3, 262: 2, 258: (5, 6, 5)}, "5, 6, 5 bits"),
        ({32997: 5}, "volume"),
        ({262: 77}, "photometric interpretation 77"),
        ({259: 9}, "jbig"),
    ],
)
def test_kinds_that_are_refused(tmp_path: Path, tags: dict[int, Any], word: str) -> None:
    (tmp_path / "r.tif").write_bytes(bare_tiff(*SHAPE, tags, bytes(SHAPE[0] * SHAPE[1] * 5)))
    refused(tmp_path / "r.tif", ScanUnsupportedError, word)


@pytest.mark.parametrize(
    "tags",
    [
        {256: 10**5, 257: 10**5, 322: 10**5, 323: 10**5},  # one tile as large as the picture
        {256: 10**5, 257: 10**5, 322: 10**5, 323: 10**5, 259: 8},
        {256: 10**4, 257: 10**9, 278: 1},  # a thousand million strips
        {256: 1, 257: 2**32 - 1, 278: 1, 259: 8},
        {256: 10**5, 257: 10**5, 258: 64},
        {258: 65535},
        {277: 65535, 258: 8},
        {270: (2, 2**31 - 1, 8)},  # a text of 2 GiB
        {273: (4, 2**31 - 1, 8), 279: (4, 2**31 - 1, 8)},
        {320: (3, 2**31 - 1, 8), 262: 3},
    ],
)
@pytest.mark.parametrize("salvage", [False, True])
def test_a_small_file_that_claims_much_takes_no_memory(tmp_path: Path, tags: dict[int, Any], salvage: bool) -> None:
    path = tmp_path / "bomb.tif"
    path.write_bytes(bare_tiff(20, 20, tags, bytes(400)))
    tracemalloc.start()
    try:
        with open_scan(path, ReadOptions(salvage=salvage, limit_pixels=10**14)) as reader:
            assert reader.read(slice(0, 20), slice(0, 20)).shape[:2] == (20, 20)[: reader.info.channels + 1]
            assert reader.embedded.tags == ()
    except ScanError:
        refused(path, ScanError, salvage=salvage, limit_pixels=10**14)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 20_000_000


EMBEDDED = {"jpeg": 7, "jpeg2k": 34712, "jpegxr": 34934, "jpegxl": 50002, "webp": 50001, "lerc": 34887, "png": 34933}


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("colour", [False, True])
def test_a_picture_in_a_tile_that_claims_to_be_larger(tmp_path: Path, name: str, colour: bool) -> None:
    options = {"webp": {"lossless": True}, "jpegxl": {"lossless": True}, "png": {"level": 1}}.get(name, {})
    huge, fitting = (np.full((*shape_yx, 3), 90, np.uint8) for shape_yx in ((700, 1600), (32, 32)))
    if not colour and name != "webp":
        huge, fitting = huge[:, :, 0].copy(), fitting[:, :, 0].copy()
    tags: dict[int, Any] = {259: EMBEDDED[name]}
    tags |= {258: (8, 8, 8), 262: 2, 277: 3} if huge.ndim == 3 else {}
    encode = getattr(imagecodecs, f"{name}_encode")
    (tmp_path / "t.tif").write_bytes(bare_tiff(32, 32, tags, bytes(encode(huge, **options))))
    refused(tmp_path / "t.tif", ScanUnreadableError, "claims 1600 x 700 pixels")
    (tmp_path / "f.tif").write_bytes(bare_tiff(32, 32, tags, bytes(encode(fitting, **options))))
    assert np.abs(read(tmp_path / "f.tif")[1].astype(int) - 90).max() <= 2


def outside(data: bytes, compression: str) -> bytes:
    return zlib.compress(data) if compression == "deflate" else bytes(imagecodecs.zstd_encode(data))


@pytest.mark.parametrize("compression", ["deflate", "zstd"])
@pytest.mark.parametrize("begin", [b"", b"Lerc2 \4\0\0\0"])
def test_lerc_is_inflated_no_further_than_its_tile(tmp_path: Path, compression: str, begin: bytes) -> None:
    bomb = outside(begin + bytes(50 * 2**20), compression)
    (tmp_path / "b.tif").write_bytes(bare_tiff(16, 16, {259: 34887}, bomb))
    tracemalloc.start()
    try:
        with open_scan(tmp_path / "b.tif") as reader, pytest.raises(ScanUnreadableError, match="no LERC of at most"):
            reader.read(*WHOLE)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compression", ["deflate", "zstd"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lerc_with_another_compression_outside(tmp_path: Path, compression: str, channels: int) -> None:
    picture = noise("uint8", channels)
    tags: dict[int, Any] = {259: 34887, **({258: (8, 8, 8), 262: 2, 277: 3} if channels == 3 else {})}
    data = bytes(imagecodecs.lerc_encode(picture, compression=compression))
    (tmp_path / "o.tif").write_bytes(bare_tiff(*SHAPE, tags, data))
    np.testing.assert_array_equal(read(tmp_path / "o.tif")[1], picture)
    huge = outside(bytes(imagecodecs.lerc_encode(np.zeros((4000, 4000, *picture.shape[2:]), np.uint8))), compression)
    (tmp_path / "h.tif").write_bytes(bare_tiff(*SHAPE, tags, huge))
    refused(tmp_path / "h.tif", ScanUnreadableError, "claims 4000 x 4000 pixels")


def test_lerc_that_claims_many_samples_of_a_pixel(tmp_path: Path) -> None:
    data = bytearray(imagecodecs.lerc_encode(np.full(SHAPE, 90, np.uint8)))
    struct.pack_into("<I", data, 22, 2**24)
    (tmp_path / "d.tif").write_bytes(bare_tiff(*SHAPE, {259: 34887}, bytes(data)))
    refused(tmp_path / "d.tif", ScanUnreadableError, "claims")


@pytest.mark.parametrize("shape_yx", [(2048, 1536), (1234, 1234), (136, 256), (256, 200), (20_000, 300)])
@pytest.mark.parametrize("container", [False, True])
def test_jpeg_xl_says_its_size(shape_yx: tuple[int, int], container: bool) -> None:
    encoded = bytes(imagecodecs.jpegxl_encode(np.zeros(shape_yx, np.uint8), usecontainer=container))
    assert encoded.startswith(b"\xff\x0a") != container
    with pytest.raises(ScanUnreadableError, match=f"claims {shape_yx[1]} x {shape_yx[0]} pixels"):
        check_embedded_size(encoded, 50002, (1, 1), "it")


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
def test_what_is_left_of_a_cut_file_is_salvaged(tmp_path: Path, compression: str | None) -> None:
    path, picture = tmp_path / "cut.tif", np.repeat(noise("uint8"), 5, axis=1)
    tifffile.imwrite(path, picture, compression=compression, rowsperstrip=7)
    whole = tifffile.imread(path)
    with tifffile.TiffFile(path) as file:
        start, count = file.pages.first.dataoffsets[4], file.pages.first.databytecounts[4]
    path.write_bytes(path.read_bytes()[: start + count // 2])
    refused(path, ScanUnreadableError, "cut off")
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        samples = reader.read(*WHOLE)
        holes = reader.missing_regions
    kept = holes[0].y0
    assert 28 < kept < 35 if compression == "zlib" else kept == 28
    np.testing.assert_array_equal(samples[:kept], whole[:kept])
    lost = np.zeros(SHAPE[0], bool)
    for hole in holes:
        lost[hole.rows] = True
        assert (hole.x0, hole.x1) == (0, picture.shape[1])
    assert lost[kept:].all()
    assert (samples[kept:] == 127).all()


def test_rows_of_one_long_strip_are_salvaged_up_to_the_cut(tmp_path: Path) -> None:
    path, picture = tmp_path / "long.tif", np.tile(noise("uint16"), (40, 40))
    tifffile.imwrite(path, picture, rowsperstrip=picture.shape[0])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        samples, first = reader.read(*WHOLE), reader.missing_regions[0].y0
    assert first > 0.45 * picture.shape[0]
    np.testing.assert_array_equal(samples[:first], picture[:first])


def cut_strip(path: Path, share: float, strip: int = 0) -> None:
    """Cut a file off in one of its strips, whose bytes follow the directory."""
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages.first.dataoffsets[strip], file.pages.first.databytecounts[strip]
    path.write_bytes(path.read_bytes()[: offset + int(share * count)])


def salvaged(path: Path) -> tuple[NDArray[Any], int, ScanInfo]:
    """What is left of a scan, how many rows that is, and the rest is marked, by whatever windows it is read."""
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        samples, height = reader.read(*WHOLE), reader.info.shape_yx[0]
        rows = min(hole.y0 for hole in reader.missing_regions)
        assert sorted(y for hole in reader.missing_regions for y in range(hole.y0, hole.y1)) == list(
            range(rows, height)
        )
        again = np.concatenate([reader.read(slice(y, y + 17), slice(None)) for y in range(0, height, 17)])
        np.testing.assert_array_equal(again, samples)
        assert min(hole.y0 for hole in reader.missing_regions) == rows
        assert (samples[rows:] == np.iinfo(samples.dtype).max // 2).all()
        return samples, rows, reader.info


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "lzma"])
@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("uint8", {}),
        ("uint8", {"photometric": "rgb", "planarconfig": "separate"}),
        ("uint16", {"predictor": 2, "byteorder": ">"}),
        ("uint16", {"photometric": "rgb", "predictor": 2}),
        ("float32", {"predictor": 3}),
    ],
)
def test_whole_rows_of_a_compressed_strip_are_salvaged(
    tmp_path: Path, compression: str, dtype: str, options: dict[str, Any]
) -> None:
    path, strip = tmp_path / "s.tif", 0
    rng = np.random.default_rng(3)
    picture: NDArray[Any] = (rng.integers(60, 90, (300, 200, 3)) * (0.01 if dtype == "float32" else 1)).astype(dtype)
    picture = picture if "photometric" in options else picture[:, :, 0]
    if "planarconfig" in options:
        picture, strip = np.moveaxis(picture, 2, 0), 2
    if compression in ("packbits", "lzma") and "predictor" in options:
        pytest.skip("predictors are of deflate and LZW")
    tifffile.imwrite(path, picture, compression=compression, rowsperstrip=300, metadata=None, **options)
    whole = read(path)[1]
    cut_strip(path, 0.9, strip)
    refused(path, ScanUnreadableError, "cut off")
    samples, rows, info = salvaged(path)
    assert 0.8 * 300 < rows < 300, info
    np.testing.assert_array_equal(samples[:rows], whole[:rows])


def unpacked_bytes(data: bytes) -> int:
    """How many bytes a PackBits stream gives before its end, or its cut."""
    at = found = 0
    while at < len(data):
        head = data[at]
        if head < 128:
            found += min(head + 1, len(data) - at - 1)
            at += head + 2
        elif head > 128:
            found += (257 - head) * (at + 1 < len(data))
            at += 2
        else:
            at += 1
    return found


@pytest.mark.parametrize("share", [0.001, 0.3, 0.41, 0.5, 0.63, 0.77, 0.85, 0.95])
@pytest.mark.parametrize("offset", [0, 1, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_whole_rows_of_packbits_are_salvaged_wherever_it_is_cut(
    tmp_path: Path, share: float, offset: int, seed: int
) -> None:
    rng, path = np.random.default_rng(seed), tmp_path / "p.tif"
    noisy, runs = rng.integers(0, 256, 60_000), rng.integers(0, 256, 6000).repeat(rng.integers(1, 41, 6000))[:60_000]
    picture = np.where(np.arange(60_000) // 70 % 2, noisy, runs).astype(np.uint8).reshape(300, 200)
    tifffile.imwrite(path, picture, compression="packbits", rowsperstrip=300, metadata=None)
    with tifffile.TiffFile(path) as file:
        start, count = file.pages.first.dataoffsets[0], file.pages.first.databytecounts[0]
    data = path.read_bytes()[: start + int(share * count) + offset]
    path.write_bytes(data)
    samples, rows, _ = salvaged(path)
    assert rows == unpacked_bytes(data[start:]) // 200
    np.testing.assert_array_equal(samples[:rows], picture[:rows])


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4"])
@pytest.mark.parametrize("share", [0.004, 0.1, 0.5, 0.77, 0.95])
@pytest.mark.parametrize("seed", [0, 1])
def test_whole_rows_of_a_fax_are_salvaged(tmp_path: Path, compression: str, share: float, seed: int) -> None:
    page = np.ones((600, 400), bool)
    rng = np.random.default_rng(seed)
    page[rng.integers(20, 560, 2000), rng.integers(0, 400, 2000)] = False
    page[100:200, 50:300] = page[300:420] = False
    Image.fromarray(page).save(tmp_path / "f.tif", compression=compression, tiffinfo={278: 600})
    with tifffile.TiffFile(tmp_path / "f.tif") as file:
        tags = {code: file.pages.first.tags.valueof(code, default=1) for code in (258, 259, 262, 266)}
        file.filehandle.seek(file.pages.first.dataoffsets[0])
        data = file.filehandle.read(file.pages.first.databytecounts[0])
    (tmp_path / "f.tif").write_bytes(bare_tiff(600, 400, tags, data))  # whose directory is not behind the strip
    whole = read(tmp_path / "f.tif")[1]
    cut_strip(tmp_path / "f.tif", share)
    samples, rows, _ = salvaged(tmp_path / "f.tif")
    np.testing.assert_array_equal(samples[:rows], whole[:rows])
    assert rows > 600 * share * 0.8 - 25


@pytest.mark.parametrize(("bits", "order"), [(8, 2), (12, 1), (1, 2)])
def test_bits_in_any_order_and_depth_are_salvaged(tmp_path: Path, bits: int, order: int) -> None:
    path = tmp_path / "o.tif"
    picture = np.random.default_rng(3).integers(0, 2**bits, (300, 200), dtype=np.uint16 if bits > 8 else np.uint8)
    data = zlib.compress(imagecodecs.packints_encode(picture, bits) if bits != 8 else picture)
    data = bytes(imagecodecs.bitorder_encode(data)) if order == 2 else data
    path.write_bytes(bare_tiff(300, 200, {258: bits, 259: 8, 266: order}, data))
    whole = read(path)[1]
    cut_strip(path, 0.9)
    samples, rows, _ = salvaged(path)
    assert 220 < rows < 300
    np.testing.assert_array_equal(samples[:rows], whole[:rows])


def test_a_cut_strip_that_is_damaged_besides_is_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "d.tif"
    tifffile.imwrite(path, np.tile(noise("uint8"), (9, 9)), compression="zlib", rowsperstrip=9 * SHAPE[0])
    cut_strip(path, 0.9)
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[0]
    data = path.read_bytes()
    path.write_bytes(data[: offset + 2] + b"\xff" * 9 + data[offset + 11 :])
    assert salvaged(path)[1] == 0


def test_the_range_of_a_cut_strip_is_of_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "r.tif"
    picture = np.linspace(-5, 300, 300 * 200).reshape(300, 200).astype(np.float32)
    tifffile.imwrite(path, picture, compression="zlib", rowsperstrip=300)
    cut_strip(path, 0.5)
    samples, rows, info = salvaged(path)
    assert f"from -5 to {picture[rows - 1, -1]:.6g}" in info.metadata["lightness"]
    assert (samples[0, 0], samples[rows - 1, -1]) == (0, 65535)


def without(path: Path, code: int) -> None:
    """Rename a tag of a little-endian TIFF of one page to one that nobody knows."""
    data = bytearray(path.read_bytes())
    at = struct.unpack_from("<I", data, 4)[0]
    entries = range(at + 2, at + 2 + 12 * struct.unpack_from("<H", data, at)[0], 12)
    place = next(entry for entry in entries if struct.unpack_from("<H", data, entry)[0] == code)
    struct.pack_into("<H", data, place, code + 1000)
    path.write_bytes(data)


def mark_as_masks(path: Path, pages: Iterable[int]) -> None:
    """tifffile writes no masks of 8 bits."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        for number in pages:
            file.pages[number].tags[254].overwrite(4)


def write_by_gdal(path: Path, picture: NDArray[Any], mask: NDArray[Any] | None = None, **options: Any) -> None:
    planes = picture[None] if picture.ndim == 2 else np.moveaxis(picture, 2, 0)
    profile = {"driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1], "count": len(planes), "dtype": picture.dtype}
    with rasterio.open(path, "w", **profile, **PLACE, **options) as dataset:
        dataset.write(planes)
        if mask is not None:
            dataset.write_mask(mask)


def bare_tiff(height: int, width: int, tags: dict[int, Any], data: bytes) -> bytes:
    """A little-endian TIFF with one strip or tile of 8-bit gray, but for what ``tags`` says.

    A tag is a number, some numbers, bytes (of RATIONAL), or a triple of type, count and offset for 270, 273, 279, 320.
    """
    given: dict[int, Any] = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, 278: height}
    given |= {324: None, 325: len(data)} if 322 in tags else {273: None, 279: len(data)}
    given |= tags
    entries, values = b"", b""
    values_at = 8 + 2 + 12 * len(given) + 4
    for code, value in sorted(given.items()):
        if isinstance(value, tuple) and code in (270, 273, 279, 320):
            entries += struct.pack("<HHII", code, *value)
        elif isinstance(value, tuple | bytes):
            packed = value if isinstance(value, bytes) else struct.pack(f"<{len(value)}H", *value)
            kind, count = (5, len(packed) // 8) if isinstance(value, bytes) else (3, len(value))
            place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", values_at + len(values))
            values += packed if len(packed) > 4 else b""
            entries += struct.pack("<HHI", code, kind, count) + place
        else:
            entries += struct.pack("<HHI", code, 4, 1) + (b"DATA" if value is None else struct.pack("<I", value))
    entries = entries.replace(b"DATA", struct.pack("<I", values_at + len(values)))
    return b"II*\0" + struct.pack("<IH", 8, len(given)) + entries + b"\0\0\0\0" + values + data
