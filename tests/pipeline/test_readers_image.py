"""PNG and JPEG: ink, profiles, gamma, alpha, what is said beside the pixels, what is left of a damaged file."""

from __future__ import annotations

import functools
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio.shutil
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

from pipeline.errors import ScanError, ScanUnreadableError
from pipeline.metadata import exif
from pipeline.metadata.model import TiffTag
from pipeline.readers import open_scan
from pipeline.types import ReadOptions, Roi, ScanInfo

pytestmark = pytest.mark.filterwarnings("error", "ignore:'mode' parameter:DeprecationWarning")

EVERYTHING = slice(None), slice(None)
WIDE_GAMMA = 3.0


SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def soft(shape_yx: tuple[int, int] = (90, 130), channels: int = 3, seed: int = 5) -> NDArray[np.uint8]:
    """A smooth picture: JPEG keeps it nearly as it is."""
    rough = np.random.default_rng(seed).integers(0, 256, (7, 9, channels), dtype=np.uint8)
    planes = [Image.fromarray(rough[:, :, n]).resize(shape_yx[::-1], Image.Resampling.BICUBIC) for n in range(channels)]
    picture = np.dstack([np.asarray(plane) for plane in planes])
    return picture[:, :, 0] if channels == 1 else picture


def read(path: Path, **reading: Any) -> tuple[NDArray[Any], ScanInfo]:
    with open_scan(path, ReadOptions(**reading)) as reader:
        return reader.read(*EVERYTHING), reader.info


def lightness_of(gray_light: NDArray[Any]) -> NDArray[Any]:
    """CIE L* of luminance, 0 to 100, as CIE 15 has it."""
    return np.where(gray_light > 216 / 24389, 116 * np.cbrt(gray_light) - 16, gray_light * 24389 / 27)


def as_lightness(samples: NDArray[Any]) -> NDArray[Any]:
    return samples / 655.35


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(picture: Image.Image, *chunks: bytes) -> bytes:
    """The PNG of a picture with more chunks behind its header."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    whole = file.getvalue()
    return whole[:33] + b"".join(chunks) + whole[33:]


def jpeg_with(picture: Image.Image, *segments: tuple[int, bytes], **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    more = b"".join(b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return b"\xff\xd8" + more + file.getvalue()[2:]


# Lightness


@pytest.mark.parametrize(("space", "marked"), [("CMYK", True), ("YCCK", True), ("CMYK", False)])
def test_ink_is_as_light_as_pillow_takes_it(tmp_path: Path, space: str, marked: bool) -> None:
    ink = soft(channels=4)
    data = imagecodecs.jpeg8_encode(255 - ink, level=100, colorspace="CMYK", outcolorspace=space, subsampling="444")
    adobe = data.index(b"\xff\xee")
    if not marked:
        data = data[:adobe] + data[adobe + 16 :]
    path = tmp_path / "ink.jpg"
    path.write_bytes(data)
    got, info = read(path)
    paper = 1 - ink / 255
    assert np.abs(got - 255 * paper[:, :, :3] * paper[:, :, 3:]).max() <= 6
    with Image.open(path) as image:
        difference = np.abs(got.astype(int) - np.asarray(image.convert("RGB")))
    # YCCK is stored with colour of half the resolution, which decoders enlarge in their own ways.
    assert difference.max() <= (2 if space == "CMYK" else 8)
    assert difference.mean() < 0.5
    assert (info.channels, info.tone, info.depth) == (3, "srgb", "uint8")
    assert "(1 - C)(1 - K)" in info.metadata["lightness"]


ADOBE = b"Adobe\0\x64\0\0\0\0"


@pytest.mark.parametrize(
    ("jfif", "adobe", "names", "is_ycc"),
    [
        (True, -1, b"\1\2\3", True),
        (True, -1, b"RGB", True),
        (True, 0, b"RGB", True),
        (False, 0, b"\1\2\3", False),
        (False, 1, b"RGB", True),
        (False, -1, b"RGB", False),
        (False, -1, b"\0\1\2", True),
    ],
)
def test_what_the_components_of_a_jpeg_are_is_told_by_its_markers(
    tmp_path: Path, jfif: bool, adobe: int, names: bytes, is_ycc: bool
) -> None:
    """Names of components count only where no marker says more; as Pillow's libjpeg has it."""
    path = tmp_path / "a.jpg"
    stored = soft(channels=3)
    data = imagecodecs.jpeg8_encode(stored, level=100, colorspace="RGB", outcolorspace="RGB", subsampling="444")
    data = data[:2] + data[data.index(b"\xff\xdb") :]
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    edited = bytearray(data)
    for n, name in enumerate(names):
        edited[frame + 10 + 3 * n] = edited[scan + 5 + 2 * n] = name
    segments = [(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")] * jfif + [(0xEE, ADOBE + bytes([max(0, adobe)]))] * (adobe >= 0)
    more = b"".join(b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    path.write_bytes(b"\xff\xd8" + more + bytes(edited[2:]))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert (np.abs(expected - stored).max() > 20) == is_ycc
    assert np.abs(read(path)[0] - expected).max() <= 2


def test_twelve_bits_are_kept(tmp_path: Path) -> None:
    picture = soft(channels=1).astype(np.uint16) * 16
    data = imagecodecs.jpeg8_encode(picture, level=100, bitspersample=12)
    (tmp_path / "deep.jpg").write_bytes(data)
    got, info = read(tmp_path / "deep.jpg")
    expected = imagecodecs.jpeg8_decode(data).astype(np.float64)
    assert info.dtype == info.depth == "uint16"
    assert np.abs(got / 65535 * 4095 - expected).max() <= 2


@functools.cache  # a profile says in which second it was made
def linear_profile() -> bytes:
    """A gray profile whose samples are light itself, by another library's word: LittleCMS writes and reads it."""
    return bytes(imagecodecs.cms_profile("gray", whitepoint=[0.9642, 1.0, 0.8249], gamma=WIDE_GAMMA))


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_gray_profile_says_how_light_samples_are(tmp_path: Path, ending: str) -> None:
    picture = soft(channels=1)
    path = tmp_path / f"scan.{ending}"
    Image.fromarray(picture).save(path, icc_profile=linear_profile(), **({"quality": 100} if ending == "jpg" else {}))
    got, info = read(path)
    assert (info.tone, info.dtype, info.channels, info.depth) == ("lightness", "uint16", 1, "uint8")
    assert "ICC profile" in info.metadata["lightness"]
    tolerance = 0.2 if ending == "png" else 1.5
    assert np.abs(as_lightness(got) - lightness_of((picture / 255) ** WIDE_GAMMA)).max() < tolerance
    with open_scan(path) as reader:
        assert reader.embedded.icc == linear_profile()


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_srgb_profile_leaves_samples_as_they_are(tmp_path: Path, ending: str, channels: int) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / f"scan.{ending}"
    options = {"subsampling": 0} if ending == "jpg" else {}
    Image.fromarray(soft(channels=channels)).save(path, icc_profile=profile, **options)
    got, info = read(path)
    with Image.open(path) as image:
        assert np.abs(got.astype(int) - np.asarray(image)).max() <= 2
    assert (info.tone, info.dtype, info.channels) == ("srgb", "uint8", channels)
    assert "lightness" not in info.metadata
    assert "dropped" not in info.metadata


def test_an_icc_profile_of_several_segments_is_whole_again(tmp_path: Path) -> None:
    profile = linear_profile()
    padded = profile + b"\0" * 150_000  # three segments of a JPEG
    padded = struct.pack(">I", len(padded)) + padded[4:]
    Image.fromarray(soft(channels=1)).save(tmp_path / "big.jpg", icc_profile=padded)
    with open_scan(tmp_path / "big.jpg") as reader:
        assert reader.embedded.icc == padded
        assert reader.info.tone == "lightness"


def test_a_broken_profile_is_said_not_raised(tmp_path: Path) -> None:
    Image.fromarray(soft(channels=1)).save(tmp_path / "p.png", icc_profile=b"no profile" * 30)
    got, info = read(tmp_path / "p.png")
    assert np.array_equal(got, soft(channels=1))
    assert info.tone == "srgb"
    assert any("ICC profile" in dropped for dropped in info.metadata["dropped"])


@pytest.mark.parametrize("channels", [1, 3])
def test_png_gamma(tmp_path: Path, channels: int) -> None:
    picture = Image.fromarray(soft(channels=channels))
    gamma = chunk(b"gAMA", struct.pack(">I", 45455))
    (tmp_path / "g.png").write_bytes(png_with(picture, gamma))
    got, info = read(tmp_path / "g.png")
    light = (np.asarray(picture) / 255) ** (100_000 / 45455)
    luminance = light if channels == 1 else light @ [0.2126, 0.7152, 0.0722]
    assert (info.tone, info.channels) == ("lightness", 1)
    assert np.abs(as_lightness(got) - lightness_of(luminance)).max() < 0.02
    (tmp_path / "s.png").write_bytes(png_with(picture, chunk(b"sRGB", b"\0"), gamma))
    got, info = read(tmp_path / "s.png")
    assert info.tone == "srgb"
    assert np.array_equal(got, np.asarray(picture))


def test_a_palette_with_gamma(tmp_path: Path) -> None:
    picture = Image.fromarray(soft()).quantize(40)
    (tmp_path / "p.png").write_bytes(png_with(picture, chunk(b"gAMA", struct.pack(">I", 100_000))))
    got, info = read(tmp_path / "p.png")
    luminance = np.asarray(picture.convert("RGB")) / 255 @ [0.2126, 0.7152, 0.0722]
    assert np.abs(as_lightness(got) - lightness_of(luminance)).max() < 0.02
    assert (info.depth, info.channels) == ("uint8", 1)


def chrm(red_x: float = 0.64, green: tuple[float, float] = (0.21, 0.71)) -> bytes:
    numbers = 0.3127, 0.329, red_x, 0.33, *green, 0.15, 0.06
    return chunk(b"cHRM", struct.pack(">8I", *(round(number * 100_000) for number in numbers)))


def coloured() -> Image.Image:
    """Red, green, blue, a darker red and a dark gray, 16 pixels of each."""
    picture = np.zeros((16, 80, 3), np.uint8)
    for at, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 0, 0), (60, 60, 60))):
        picture[:, 16 * at : 16 * at + 16] = colour
    return Image.fromarray(picture)


# CIE 15 and Adobe RGB (1998): L* of 0.2974, 0.6273 and 0.0753 of white's luminance, and of those dark ones.
ADOBE_LIGHTNESS = 61.4, 83.3, 33.0, 48.8, 24.2


@pytest.mark.parametrize("mode", ["RGB", "P", "deep"])
def test_primaries_of_a_png(tmp_path: Path, mode: str) -> None:
    path, gamma = tmp_path / "c.png", chunk(b"gAMA", struct.pack(">I", 45470))
    if mode == "deep":
        data = bytes(imagecodecs.png_encode(np.asarray(coloured()).astype(np.uint16) * 257))
        path.write_bytes(data[:33] + gamma + chrm() + data[33:])
    else:
        picture = coloured() if mode == "RGB" else coloured().quantize(5, dither=Image.Dither.NONE)
        path.write_bytes(png_with(picture, gamma, chrm()))
    got, info = read(path)
    assert (info.tone, info.channels) == ("lightness", 1)
    np.testing.assert_allclose(as_lightness(got[8, 8::16]), ADOBE_LIGHTNESS, atol=0.06)
    assert "primaries" in info.metadata["lightness"]
    assert "dropped" not in info.metadata


def test_primaries_that_are_those_of_srgb_or_none(tmp_path: Path) -> None:
    path, gamma = tmp_path / "c.png", chunk(b"gAMA", struct.pack(">I", 45455))
    path.write_bytes(png_with(coloured(), gamma))
    plain, info = read(path)
    path.write_bytes(png_with(coloured(), gamma, chrm(green=(0.3, 0.6))))
    got, _ = read(path)
    np.testing.assert_array_equal(got, plain)
    assert abs(as_lightness(got[8, 8]) - 53.2) < 0.06
    path.write_bytes(png_with(coloured(), gamma, chrm(red_x=0.15, green=(0.15, 0.06))))
    got, info = read(path)
    np.testing.assert_array_equal(got, plain)
    assert any("cHRM" in each for each in info.metadata["dropped"])
    path.write_bytes(png_with(coloured(), chrm()))
    got, info = read(path)
    np.testing.assert_array_equal(got, np.asarray(coloured()))
    assert info.metadata["dropped"] == ["cHRM chunk (without gAMA; the samples are taken as sRGB)"]
    for more in (chunk(b"sRGB", b"\0"), chunk(b"iCCP", b"n\0\0" + zlib.compress(SRGB_PROFILE))):
        path.write_bytes(png_with(coloured(), more, gamma, chrm()))
        got, info = read(path)
        np.testing.assert_array_equal(got, np.asarray(coloured()))
        assert "dropped" not in info.metadata


def test_adobe_rgb_by_exif_is_as_light_as_by_its_profile(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"

    def saved(color_space: int, rules: str, **options: Any) -> tuple[NDArray[Any], ScanInfo]:
        block = exif.exif_block(
            (),
            exif=(TiffTag(0xA001, 3, 1, struct.pack("<H", color_space)),),
            interop=(TiffTag(1, 2, 4, rules.encode() + b"\0"),),
        )
        coloured().save(path, quality=100, subsampling=0, exif=b"Exif\0\0" + block, **options)
        return read(path)

    got, info = saved(65535, "R03")
    assert (info.tone, info.channels) == ("lightness", 1)
    np.testing.assert_allclose(as_lightness(got[8, 8::16]), ADOBE_LIGHTNESS, atol=0.6)  # a JPEG's red is 254
    assert "Adobe RGB" in info.metadata["lightness"]
    by_profile, info = saved(65535, "R03", icc_profile=bytes(imagecodecs.cms_profile("adobergb")))
    assert "ICC profile" in info.metadata["lightness"]
    assert np.abs(as_lightness(got) - as_lightness(by_profile)).max() < 0.06
    for color_space, rules in ((1, "R03"), (65535, "R98"), (1, "R98")):
        assert saved(color_space, rules)[1].tone == "srgb"


def test_adobe_rgb_by_exif_of_a_gray_jpeg(tmp_path: Path) -> None:
    block = exif.exif_block((), (TiffTag(0xA001, 3, 1, b"\xff\xff"),), interop=(TiffTag(1, 2, 4, b"R03\0"),))
    gray = Image.fromarray(np.full((16, 16), 60, np.uint8))
    gray.save(tmp_path / "g.jpg", quality=100, exif=b"Exif\0\0" + block)
    got, info = read(tmp_path / "g.jpg")
    assert np.abs(as_lightness(got) - 24.2).max() < 0.06
    assert "Adobe RGB" in info.metadata["lightness"]


# Alpha


@pytest.mark.parametrize("kind", ["LA", "RGBA", "palette", "tRNS gray", "tRNS RGB"])
def test_png_alpha_is_the_mask(tmp_path: Path, kind: str) -> None:
    rgb, alpha = soft(), soft(channels=1, seed=8)
    path = tmp_path / "a.png"
    options: dict[str, Any] = {}
    match kind:
        case "LA":
            image = Image.fromarray(np.dstack([rgb[:, :, 0], alpha]), "LA")
        case "RGBA":
            image = Image.fromarray(np.dstack([rgb, alpha]))
        case "palette":
            image = Image.fromarray(rgb).quantize(30)
            options["transparency"] = bytes(range(0, 240, 8))
        case "tRNS gray":
            image = Image.fromarray(rgb[:, :, 0])
            options["transparency"] = int(rgb[40, 40, 0])
        case _:
            image = Image.fromarray(rgb)
            options["transparency"] = tuple(int(value) for value in rgb[40, 40])
    image.save(path, **options)
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGBA"))
    with open_scan(path) as reader:
        info = reader.info
        assert info.mask == "alpha"
        np.testing.assert_array_equal(reader.read_mask(*EVERYTHING), expected[:, :, 3])
        np.testing.assert_array_equal(reader.read_mask(slice(30, 50), slice(20, 99)), expected[30:50, 20:99, 3])
        got = reader.read(*EVERYTHING)
        np.testing.assert_array_equal(got, expected[:, :, :3] if info.channels == 3 else expected[:, :, 0])
    assert expected[:, :, 3].min() < 255
    assert "dropped" not in info.metadata


def test_sixteen_bit_alpha(tmp_path: Path) -> None:
    stored = np.random.default_rng(3).integers(0, 65536, (40, 50, 4), dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(stored))
    with open_scan(tmp_path / "deep.png") as reader:
        assert reader.info.result_dtype == np.uint16
        np.testing.assert_array_equal(reader.read(*EVERYTHING), stored[:, :, :3])
        np.testing.assert_array_equal(reader.read_mask(*EVERYTHING), stored[:, :, 3])


def test_the_mask_that_gdal_hides_behind_a_jpeg(tmp_path: Path) -> None:
    picture, mask = soft((64, 96), 3), soft((64, 96), 1) > 120
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"):
        warnings.simplefilter("ignore")
        shape = {"width": 96, "height": 64, "count": 3, "dtype": "uint8"}
        with rasterio.open(tmp_path / "m.tif", "w", driver="GTiff", **shape) as file:
            file.write(np.moveaxis(picture, 2, 0))
            file.write_mask(mask)
        rasterio.shutil.copy(tmp_path / "m.tif", tmp_path / "m.jpg", driver="JPEG", QUALITY="100")
    (tmp_path / "m.tif").unlink()
    with open_scan(tmp_path / "m.jpg") as reader:
        assert reader.info.mask == "alpha"
        np.testing.assert_array_equal(reader.read_mask(*EVERYTHING), mask * 255)
        np.testing.assert_array_equal(reader.read_mask(slice(9, 33), slice(5, 50)), mask[9:33, 5:50] * 255)


# What a file says beside its pixels

EXIF = Image.Exif()
EXIF[271], EXIF[274], EXIF[282], EXIF[283], EXIF[296] = "Maker", 6, 118.0, 118.0, 3
EXIF_BLOCK = EXIF.tobytes().removeprefix(b"Exif\0\0")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">%s</rdf:RDF></x:xmpmeta>'
ABOUT = b'<rdf:Description rdf:about="" xmlns:%s="%s"%s><%s>%s</%s></rdf:Description>'
IPTC = bytes.fromhex("1c02500006") + b"Atget!"
PHOTOSHOP = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + b"\0" * (len(IPTC) % 2)
PHOTOSHOP += b"8BIM\x03\xed\0\0" + struct.pack(">I", 4) + b"1234"


def test_jpeg_carries_its_blocks(tmp_path: Path) -> None:
    packet = XMP % b""
    data = jpeg_with(
        Image.fromarray(soft()),
        (0xE1, b"Exif\0\0" + EXIF_BLOCK),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet),
        (0xED, b"Photoshop 3.0\0" + PHOTOSHOP[:20]),
        (0xED, b"Photoshop 3.0\0" + PHOTOSHOP[20:]),
        (0xEB, b"JP\0\1 a manifest"),
        (0xFE, b"a comment"),
    )
    (tmp_path / "c.jpg").write_bytes(data)
    with open_scan(tmp_path / "c.jpg") as reader:
        embedded, metadata = reader.embedded, reader.info.metadata
    assert embedded.exif == EXIF_BLOCK
    assert embedded.xmp == packet
    assert embedded.photoshop == PHOTOSHOP
    assert embedded.iptc == IPTC
    with Image.open(tmp_path / "c.jpg") as image:  # Pillow finds the same
        assert image.info["xmp"] == embedded.xmp
    assert metadata["resolution"] == [118.0, 118.0, "cm"]
    assert metadata["orientation"] == 6
    assert any("a comment" in each for each in metadata["dropped"])
    assert any("APP11" in each for each in metadata["dropped"])


def test_extended_xmp_joins_the_packet(tmp_path: Path) -> None:
    note = b' xmpNote:HasExtendedXMP="%s" xmlns:xmpNote="http://ns.adobe.com/xmp/note/"' % (b"A" * 32)
    dc, exif = b"http://purl.org/dc/elements/1.1/", b"http://ns.adobe.com/exif/1.0/"
    main = XMP % (ABOUT % (b"dc", dc, note, b"dc:format", b"image/jpeg", b"dc:format"))
    long = b"x" * 70_000
    extended = XMP % (ABOUT % (b"exif", exif, b"", b"exif:UserComment", long, b"exif:UserComment"))
    parts = [
        (at, b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">II", len(extended), at) + piece)
        for at in range(0, len(extended), 40_000)
        for piece in [extended[at : at + 40_000]]
    ]
    segments = [(0xE1, body) for _, body in reversed(parts)]
    data = jpeg_with(Image.fromarray(soft()), (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + main), *segments)
    (tmp_path / "x.jpg").write_bytes(data)
    with open_scan(tmp_path / "x.jpg") as reader:
        xmp = reader.embedded.xmp
    assert long in xmp
    assert b"<exif:UserComment>" in xmp
    assert b"<dc:format>image/jpeg" in xmp
    assert b"HasExtendedXMP" not in xmp
    assert xmp.count(b"<rdf:RDF") == xmp.count(b"</rdf:RDF>") == 1


def test_png_carries_its_blocks(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "Quay")
    texts.add_text("Author", "Eugène Atget", zip=True)
    texts.add_itxt("Copyright", "© 1900", zip=True)
    texts.add_text("Creation Time", "Tue, 03 Apr 1900 10:00:00 GMT")
    texts.add_text("Software", "scanner 1.0")
    texts.add_text("Comment", "hello")
    texts.add_itxt("XML:com.adobe.xmp", (XMP % b"").decode(), zip=True)
    texts.add_text("Raw profile type iptc", f"\niptc\n{len(PHOTOSHOP):8}\n{PHOTOSHOP.hex()}\n", zip=True)
    Image.fromarray(soft()).save(tmp_path / "t.png", pnginfo=texts, exif=EXIF)
    with open_scan(tmp_path / "t.png") as reader:
        embedded, metadata = reader.embedded, reader.info.metadata
    said = {tag.code: tag.value.rstrip(b"\0").decode() for tag in embedded.tags}
    assert said == {
        269: "Quay",
        315: "Eugène Atget",
        33432: "© 1900",
        306: "1900:04:03 10:00:00",
        305: "scanner 1.0",
    }
    assert embedded.xmp == XMP % b""
    assert embedded.photoshop == PHOTOSHOP
    assert embedded.iptc == IPTC
    assert embedded.exif == EXIF_BLOCK
    assert metadata["orientation"] == 6
    assert metadata["resolution"] == [118.0, 118.0, "cm"]
    assert metadata["dropped"] == ["text 'Comment'"]


def test_cicp_is_said_to_be_ignored(tmp_path: Path) -> None:
    (tmp_path / "c.png").write_bytes(png_with(Image.fromarray(soft()), chunk(b"cICP", bytes([9, 16, 0, 1]))))
    assert any("cICP" in each for each in read(tmp_path / "c.png")[1].metadata["dropped"])


@pytest.mark.parametrize("name", [b"iCCP", b"zTXt", b"iTXt"])
def test_blocks_that_inflate_without_end_are_left_out(tmp_path: Path, name: bytes) -> None:
    bomb = zlib.compress(b"\0" * 40_000_000, 9)
    keyword = b"Title" if name != b"iTXt" else b"XML:com.adobe.xmp"
    middle = b"\0\0" if name != b"iTXt" else b"\0\1\0\0\0"
    (tmp_path / "b.png").write_bytes(png_with(Image.fromarray(soft()), chunk(name, keyword + middle + bomb)))
    with open_scan(tmp_path / "b.png") as reader:
        assert not reader.embedded.icc
        assert not reader.embedded.xmp
        assert not reader.embedded.tags
        assert any("inflates" in each for each in reader.info.metadata["dropped"])


def test_blocks_damaged_anywhere_give_a_scan_or_our_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(11)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Raw profile type iptc", f"\niptc\n{len(PHOTOSHOP):8}\n{PHOTOSHOP.hex()}\n")
    file = io.BytesIO()
    Image.fromarray(soft((16, 16))).save(file, "PNG", pnginfo=texts, exif=EXIF, icc_profile=linear_profile())
    jpeg = jpeg_with(
        Image.fromarray(soft((16, 16))),
        (0xE1, b"Exif\0\0" + EXIF_BLOCK),
        (0xED, b"Photoshop 3.0\0" + PHOTOSHOP),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP % b""),
        (0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">II", len(XMP), 0) + XMP),
    )
    opened = refused = 0
    for trial in range(120):
        data = bytearray((file.getvalue(), jpeg)[trial % 2])
        for at in rng.integers(8, 700, 4):
            data[at % len(data)] = rng.integers(0, 256)
        (tmp_path / "f").write_bytes(data)
        try:
            with open_scan(tmp_path / "f", ReadOptions(limit_pixels=10**6)) as reader:
                assert reader.embedded is not None
                opened += 1
        except ScanError:
            refused += 1
    assert min(opened, refused) > 10
    assert capfd.readouterr() == ("", "")


# What is left of a damaged file


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_cut_file_gives_its_upper_part(tmp_path: Path, ending: str) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (800, 600), dtype=np.uint8)
    path = tmp_path / f"cut.{ending}"
    Image.fromarray(picture).save(path, **({"quality": 100} if ending == "jpg" else {}))
    with Image.open(path) as image:
        whole = np.asarray(image)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ScanUnreadableError):
        read(path)
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        got = reader.read(*EVERYTHING)
        lost = min(hole.y0 for hole in reader.missing_regions)
        assert {(hole.x0, hole.x1) for hole in reader.missing_regions} == {(0, 600)}
        assert sorted(row for hole in reader.missing_regions for row in range(hole.y0, hole.y1)) == list(
            range(lost, 800)
        )
        assert 300 < lost < 450
        assert np.abs(got[:lost].astype(int) - whole[:lost]).max() <= 2
        assert (got[lost:] == 127).all()
        # Again, from below: what was lost stays lost, what was there stays there.
        assert (reader.read(slice(600, 700), slice(0, 50)) == 127).all()
        np.testing.assert_array_equal(reader.read(slice(0, 100), slice(None)), got[:100])


@pytest.mark.parametrize(("missing", "kept"), [(1, 250), (2, 250), (12, 240)])
def test_a_jpeg_without_its_end_marker_gives_all_rows_that_are_there(tmp_path: Path, missing: int, kept: int) -> None:
    path = tmp_path / "end & <co>.jpg"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (250, 200), dtype=np.uint8)).save(path, quality=92)
    with Image.open(path) as image:
        whole = np.asarray(image)
    path.write_bytes(path.read_bytes()[:-missing])
    if kept < 250:
        with pytest.raises(ScanUnreadableError, match="no end marker, and rows of it are missing"):
            open_scan(path)
    else:
        got, info = read(path)
        np.testing.assert_array_equal(got, whole)
        assert len(info.metadata["dropped"]) == 1
        assert "its end mark is missing; all of its rows are there" in info.metadata["dropped"][0]
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        got = reader.read(*EVERYTHING)
        assert reader.missing_regions == ((Roi(kept, 250, 0, 200),) if kept < 250 else ())
    np.testing.assert_array_equal(got[:kept], whole[:kept])
    assert (got[kept:] == 127).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_with_other_bytes_in_place_of_its_end_marker_is_whole(tmp_path: Path, options: Any) -> None:
    """As some telephones write them: a trailer of their own."""
    path = tmp_path / "trailer.jpg"
    picture = soft((300, 200), 3)
    Image.fromarray(picture).save(path, quality=92, **options)
    whole, _ = read(path)
    trailer = b"" if options else b"SEFH" + b"j\0 \x07" * 200 + b"SEFT"
    path.write_bytes(path.read_bytes()[:-2] + trailer)
    got, info = read(path)
    np.testing.assert_array_equal(got, whole)
    assert len(info.metadata["dropped"]) == 1
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        np.testing.assert_array_equal(reader.read(*EVERYTHING), whole)
        assert not reader.missing_regions
        assert reader.info.metadata["dropped"] == info.metadata["dropped"]


def test_a_jpeg_cut_between_its_scans_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(soft((300, 200), 3)).save(path, quality=92, progressive=True)
    data = path.read_bytes()
    last = data.rindex(b"\xff\xda")
    path.write_bytes(data[: data.rindex(b"\xff\xc4", 0, last)])
    with pytest.raises(ScanUnreadableError, match="cut off"):
        open_scan(path)


@pytest.mark.parametrize(("missing", "whole"), [(1, True), (5, True), (12, True), (14, True), (16, True), (30, False)])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_without_its_end_chunk_gives_all_rows_that_are_there(
    tmp_path: Path, missing: int, whole: bool, interlaced: bool
) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (250, 200), dtype=np.uint8)
    path = tmp_path / "end.png"
    data = imagecodecs.png_encode(picture) if not interlaced else adam7(picture)
    path.write_bytes(data[:-missing])
    if not whole:
        with pytest.raises(ScanUnreadableError, match="no end chunk, and rows of it are missing"):
            open_scan(path)
        return
    got, info = read(path)
    np.testing.assert_array_equal(got, picture)
    assert len(info.metadata.get("dropped", ())) == (missing > 4)


def adam7(picture: NDArray[np.uint8]) -> bytes:
    """An interlaced PNG of 8-bit gray (PNG, 8.2)."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [b"\0" + row.tobytes() for y, x, down, across in passes for row in picture[y::down, x::across]]
    head = struct.pack(">IIBBBBB", picture.shape[1], picture.shape[0], 8, 0, 0, 0, 1)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in parts)


def test_a_jpeg_that_failed_once_does_not_give_gray_the_next_time(tmp_path: Path) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (800, 600), dtype=np.uint8)
    path = tmp_path / "cut.jpg"
    Image.fromarray(picture).save(path, quality=95)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    with open_scan(path) as reader:
        for _ in range(3):
            with pytest.raises(ScanUnreadableError):
                reader.read(*EVERYTHING)


def test_a_cut_progressive_jpeg_gives_its_coarser_scans_or_nothing(tmp_path: Path) -> None:
    picture = soft((400, 600), 3)
    path = tmp_path / "cut.jpg"
    Image.fromarray(picture).save(path, progressive=True, quality=95, subsampling=0)
    data = path.read_bytes()
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    path.write_bytes(data[: scans[3] + 100])
    with pytest.raises(ScanUnreadableError):
        read(path)
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        got = reader.read(*EVERYTHING)
        assert not reader.missing_regions
        assert any("detail" in each for each in reader.info.metadata["dropped"])
    assert np.abs(got.astype(int) - picture).mean() < 12
    path.write_bytes(data[: (scans[0] + scans[1]) // 2])  # within the scan of the means
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        assert (reader.read(*EVERYTHING) == 127).all()
        assert sum(hole.y1 - hole.y0 for hole in reader.missing_regions) == 400
    path.write_bytes(data)
    with open_scan(path, ReadOptions(salvage=True)) as reader:
        np.testing.assert_array_equal(reader.read(*EVERYTHING), read(path)[0])
        assert "dropped" not in reader.info.metadata
