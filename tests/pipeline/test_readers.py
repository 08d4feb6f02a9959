"""Every kind of scan reads, window by window, as another decoder reads it whole; a bad one is refused in one line."""

from __future__ import annotations

import itertools
import os
import struct
import threading
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.endings import SCANS
from pipeline.errors import (
    ScanDamagedError,
    ScanError,
    ScanNotFoundError,
    ScanUnreadableError,
    ScanUnsupportedError,
    UsageError,
)
from pipeline.readers import open_scan
from pipeline.readers._base import SegmentCache
from pipeline.readers._tiff import layout
from pipeline.readers._tiff.segments import Segments
from pipeline.readers.image import ImageReader
from pipeline.readers.tiff import TiffReader
from pipeline.types import ReadOptions
from tests.strategies import examples

# NotGeoreferencedWarning and its kin must not reach a user.
pytestmark = pytest.mark.filterwarnings("error")

HEIGHT, WIDTH = 101, 77


def smooth(dtype: str, channels: int = 1, shape_yx: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[Any]:
    """A ramp with some noise: compresses, and no two rows or channels are alike."""
    height, width = shape_yx
    top = np.iinfo(dtype).max
    noise = np.random.default_rng(7).integers(0, top // 8, (height, width, channels))
    ramp = np.linspace(0, 0.8 * top, height * width).reshape(height, width, 1)
    picture = (ramp + noise + np.arange(channels) * (top // 30)).astype(dtype)
    return picture[:, :, 0] if channels == 1 else picture


def windows(shape_yx: tuple[int, int], seed: int = 3) -> list[tuple[slice, slice]]:
    """Random ones, then the whole, the last partial segment, one pixel and none."""
    rng = np.random.default_rng(seed)
    height, width = shape_yx
    found = []
    for _ in range(6):
        y, x = sorted(rng.integers(0, height + 1, 2)), sorted(rng.integers(0, width + 1, 2))
        found.append((slice(int(y[0]), int(y[1])), slice(int(x[0]), int(x[1]))))
    last = slice(height - 3, height + 50), slice(width - 3, width + 50)
    return [*found, (slice(None), slice(None)), last, (slice(0, 1), slice(0, 1)), (slice(5, 5), slice(0, 9))]


def assert_reads(path: Path, expected: NDArray[Any], tolerance: int = 0) -> dict[str, Any]:
    with open_scan(path) as reader:
        info = reader.info
        assert info.shape_yx == expected.shape[:2]
        assert info.channels == (1 if expected.ndim == 2 else 3)
        assert info.dtype == expected.dtype.name
        for rows, columns in windows(info.shape_yx):
            got = reader.read(rows, columns)
            assert got.dtype == expected.dtype
            assert got.flags.c_contiguous
            assert got.shape == expected[rows, columns].shape
            if got.size:
                difference = np.abs(got.astype(np.int64) - expected[rows, columns])
                assert difference.max() <= tolerance, (rows, columns)
    return dict(info.metadata)


def assert_refused(path: Path, kind: type[ScanError], *words: str) -> str:
    """Opening, or else reading the whole scan, raises ``kind`` with one line that names the path."""
    with pytest.raises(ScanError) as caught:
        read_whole(path)
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert "\n" not in message
    assert str(path) in message
    assert message.count(str(path)) == 1
    for word in words:
        assert word in message
    return message


def read_whole(path: Path) -> NDArray[Any]:
    with open_scan(path, ReadOptions(limit_pixels=10**6)) as reader:
        return reader.read(slice(None), slice(None))


# TIFF that is read

STORAGE: dict[str, dict[str, Any]] = {
    "one-strip": {},
    "strips": {"rowsperstrip": 13},
    "tiles": {"tile": (32, 48)},
    "deflate-strips": {"rowsperstrip": 13, "compression": "zlib"},
    "deflate-tiles-predictor": {"tile": (32, 48), "compression": "zlib", "predictor": True},
    "lzw": {"rowsperstrip": 20, "compression": "lzw"},
    "zstd": {"tile": (16, 16), "compression": "zstd"},
    "packbits": {"rowsperstrip": 9, "compression": "packbits"},
    "lzma": {"compression": "lzma"},
}


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("channels", ["gray", "rgb", "planar"])
@pytest.mark.parametrize(("dtype", "byteorder", "bigtiff"), [("uint8", "<", False), ("uint16", ">", True)])
def test_tiff_windows_equal_the_whole(
    tmp_path: Path, storage: str, channels: str, dtype: str, byteorder: str, bigtiff: bool
) -> None:
    picture = smooth(dtype, 1 if channels == "gray" else 3)
    path = tmp_path / "scan.tif"
    options: dict[str, Any] = {"photometric": "minisblack" if channels == "gray" else "rgb"}
    stored = picture
    if channels == "planar":
        stored, options["planarconfig"] = np.moveaxis(picture, 2, 0), "separate"
    tifffile.imwrite(path, stored, byteorder=byteorder, bigtiff=bigtiff, **options, **STORAGE[storage])
    metadata = assert_reads(path, picture)
    assert metadata["format"] == ("BigTIFF" if bigtiff else "TIFF")
    assert "dropped" not in metadata


@pytest.mark.parametrize("storage", ["one-strip", "deflate-tiles-predictor"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_min_is_white_is_inverted(tmp_path: Path, storage: str, dtype: str) -> None:
    picture = smooth(dtype)
    tifffile.imwrite(tmp_path / "w.tif", picture, photometric="miniswhite", **STORAGE[storage])
    assert_reads(tmp_path / "w.tif", ~picture)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_in_tiff_equals_the_whole(tmp_path: Path, subsampling: tuple[int, int], channels: int) -> None:
    options: dict[str, Any] = {"compressionargs": {"level": 90}, "tile": (32, 48)}
    if channels == 3:
        options |= {"photometric": "ycbcr", "subsampling": subsampling}
    path = tmp_path / "j.tif"
    tifffile.imwrite(path, smooth("uint8", channels), compression="jpeg", **options)
    assert assert_reads(path, tifffile.imread(path))["compression"] == "jpeg"


@pytest.mark.parametrize("compression", [None, "group3", "group4", "tiff_lzw"])
def test_one_bit_becomes_black_and_white(tmp_path: Path, compression: str | None) -> None:
    black_and_white = smooth("uint8") > 90
    path = tmp_path / "bits.tif"
    Image.fromarray(black_and_white).save(path, compression=compression)
    assert_reads(path, (black_and_white * 255).astype(np.uint8))


@pytest.mark.parametrize("bits", [2, 4, 12])
def test_odd_depths_are_stretched(tmp_path: Path, bits: int) -> None:
    height, width, top = 5, 8, 2**bits - 1
    values = np.random.default_rng(1).integers(0, top + 1, (height, width), dtype=np.uint16)
    packed = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(height, width, 2), axis=2)[:, :, 16 - bits :]
    path = tmp_path / "odd.tif"
    data = np.packbits(packed.reshape(height, -1), axis=1).tobytes()
    path.write_bytes(bare_tiff(width, height, bits=bits, data=data))
    dtype, full = (np.uint8, 255) if bits <= 8 else (np.uint16, 65535)
    assert_reads(path, np.rint(values * (full / top)).astype(dtype))


def test_palette_becomes_rgb_and_a_gray_one_stays_gray(tmp_path: Path) -> None:
    index = smooth("uint8")
    colours = np.random.default_rng(2).integers(0, 65536, (3, 256), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", index, photometric="palette", colormap=colours, tile=(32, 48))
    assert_reads(tmp_path / "p.tif", (colours >> 8).astype(np.uint8).T[index])
    grays = np.repeat(colours[:1], 3, axis=0)
    tifffile.imwrite(tmp_path / "g.tif", index, photometric="palette", colormap=grays)
    assert_reads(tmp_path / "g.tif", (grays[0] >> 8).astype(np.uint8)[index])
    eight_bit = (colours >> 8).astype(np.uint16)
    tifffile.imwrite(tmp_path / "e.tif", index, photometric="palette", colormap=eight_bit)
    assert_reads(tmp_path / "e.tif", eight_bit.astype(np.uint8).T[index])


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("extra", ["unassalpha", "unspecified"])
def test_fourth_channel_is_opacity_or_noted_as_dropped(tmp_path: Path, planar: bool, extra: str) -> None:
    picture = smooth("uint8", 4)
    path = tmp_path / "four.tif"
    options: dict[str, Any] = {"planarconfig": "separate"} if planar else {"tile": (32, 48)}
    stored = np.moveaxis(picture, 2, 0) if planar else picture
    tifffile.imwrite(path, stored, photometric="rgb", extrasamples=[extra], **options)
    metadata = assert_reads(path, np.ascontiguousarray(picture[:, :, :3]))
    if extra == "unspecified":
        assert metadata["dropped"] == ["1 extra channel"]
        return
    assert "dropped" not in metadata
    with open_scan(path) as reader:
        assert reader.info.mask == "alpha"
        np.testing.assert_array_equal(reader.read_mask(slice(None), slice(None)), picture[:, :, 3])


def test_gray_with_alpha_keeps_the_gray(tmp_path: Path) -> None:
    picture = smooth("uint16", 2)
    path = tmp_path / "la.tif"
    tifffile.imwrite(path, picture, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
    assert "dropped" not in assert_reads(path, picture[:, :, 0])
    with open_scan(path) as reader:
        np.testing.assert_array_equal(reader.read_mask(slice(3, 50), slice(7, 9)), picture[3:50, 7:9, 1])


@pytest.mark.parametrize("below", ["subifds", "pages"])
def test_levels_of_a_pyramid_are_not_pages(tmp_path: Path, below: str) -> None:
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(smooth("uint8"), tile=(32, 32), subifds=2 if below == "subifds" else 0)
        for step in (2, 4):
            file.write(smooth("uint8")[::step, ::step], tile=(32, 32), subfiletype=1)
    assert "dropped" not in assert_reads(path, smooth("uint8"))


def test_tiff_metadata(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    tifffile.imwrite(
        path,
        smooth("uint8"),
        resolution=(300, 600),
        resolutionunit="inch",
        compression="zlib",
        extratags=[(274, "H", 1, 6, True)],
    )
    assert read_metadata(path) == {
        "format": "TIFF",
        "compression": "adobe_deflate",
        "resolution": [300.0, 600.0, "inch"],
        "orientation": 6,
    }


def test_only_touched_segments_are_decoded_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiles.tif"
    tifffile.imwrite(path, smooth("uint8"), tile=(32, 32), compression="zlib")
    decoded: list[tuple[int, int]] = []
    plain = Segments._decoded

    def counting(self: Segments, plane: int, row: int, column: int) -> NDArray[Any]:
        decoded.append((row, column))
        return plain(self, plane, row, column)

    monkeypatch.setattr(Segments, "_decoded", counting)
    with open_scan(path) as reader:
        reader.read(slice(30, 40), slice(0, 10))
        assert decoded == [(0, 0), (1, 0)]
        reader.read(slice(33, 64), slice(5, 32))
        assert decoded == [(0, 0), (1, 0)]


@pytest.mark.parametrize("rows_per_strip", [HEIGHT, 40, 17])
@pytest.mark.parametrize("planar", [False, True])
def test_uncompressed_strips_are_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_per_strip: int, planar: bool
) -> None:
    monkeypatch.setattr(layout, "CUT_BYTES", 7 * WIDTH * 2)
    picture = smooth("uint16", 3) if planar else smooth("uint16")
    stored = np.moveaxis(picture, 2, 0) if planar else picture
    path = tmp_path / "strip.tif"
    options = {"photometric": "rgb", "planarconfig": "separate"} if planar else {"photometric": "minisblack"}
    tifffile.imwrite(path, stored, rowsperstrip=rows_per_strip, **options)  # type: ignore[arg-type]
    with TiffReader(path, ReadOptions()) as reader:
        assert reader.segment_yx[0] <= 7
    assert_reads(path, picture)


def test_cache_is_bounded_and_forgets_the_oldest() -> None:
    cache = SegmentCache(limit_bytes=250)
    made: list[int] = []

    def make(key: int, size: int = 100) -> NDArray[Any]:
        made.append(key)
        return np.full(size, key, dtype=np.uint8)

    for key in (1, 2, 1, 3, 1, 2):
        assert cache.get(key, lambda key=key: make(key))[0] == key  # type: ignore[misc]
        assert cache.held_bytes <= 250
    assert made == [1, 2, 3, 2]
    cache.get(9, lambda: make(9, 1000))
    assert cache.held_bytes <= 250


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_threads_read_the_same_as_one(tmp_path: Path, ending: str) -> None:
    picture = smooth("uint8", 3, (200, 150))
    path = tmp_path / f"scan.{ending}"
    if ending == "tif":
        tifffile.imwrite(path, picture, photometric="rgb", tile=(16, 16), compression="zlib")
    else:
        Image.fromarray(picture).save(path)
    reader = (TiffReader if ending == "tif" else ImageReader)(path, ReadOptions(), cache_bytes=5000)
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for rows, columns in windows((200, 150), seed):
            try:
                if not np.array_equal(reader.read(rows, columns), picture[rows, columns]):
                    wrong.append((rows, columns))
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader.close()
    assert not wrong


@examples(25)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    storage=st.sampled_from(sorted(STORAGE)),
    channels=st.sampled_from([1, 3]),
    start=st.tuples(st.integers(-80, 80), st.integers(-80, 80)),
    stop=st.tuples(st.integers(-80, 80), st.integers(-80, 80)),
)
def test_slices_mean_what_numpy_means(
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    storage: str,
    channels: int,
    start: tuple[int, int],
    stop: tuple[int, int],
) -> None:
    picture = smooth("uint8", channels, (height, width))
    path = tmp_path_factory.mktemp("slices") / "s.tif"
    tifffile.imwrite(path, picture, photometric="rgb" if channels == 3 else "minisblack", **STORAGE[storage])
    rows, columns = slice(start[0], stop[0]), slice(start[1], stop[1])
    with open_scan(path) as reader:
        np.testing.assert_array_equal(reader.read(rows, columns), picture[rows, columns])


# PNG and JPEG that are read


def pillow_picture(kind: str) -> tuple[Image.Image, NDArray[Any]]:
    """A picture as Pillow writes it, and what must be read."""
    gray, rgb = smooth("uint8"), smooth("uint8", 3)
    match kind:
        case "gray":
            return Image.fromarray(gray), gray
        case "gray16":
            return Image.fromarray(smooth("uint16")), smooth("uint16")
        case "gray-alpha":
            return Image.fromarray(np.dstack([gray, ~gray]), "LA"), gray
        case "rgb":
            return Image.fromarray(rgb), rgb
        case "rgba":
            return Image.fromarray(np.dstack([rgb, gray])), rgb
        case "one-bit":
            return Image.fromarray(gray > 90), ((gray > 90) * 255).astype(np.uint8)
        case "palette":
            palette = Image.fromarray(rgb).quantize(50)
            return palette, np.asarray(palette.convert("RGB"))
        case "gray-palette":
            image = Image.fromarray(gray).convert("P")
            return image, np.asarray(image.convert("L"))
    raise AssertionError(kind)


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize("kind", ["gray", "gray16", "gray-alpha", "rgb", "rgba", "one-bit", "palette", "gray-palette"])
def test_png_windows_equal_the_whole(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.readers.image._BAND_BYTES", 3000)
    image, expected = pillow_picture(kind)
    image.save(tmp_path / "scan.png", dpi=(254, 254))
    metadata = assert_reads(tmp_path / "scan.png", expected)
    assert metadata["format"] == "PNG"
    assert metadata["resolution"] == [100.0, 100.0, "cm"]
    assert "dropped" not in metadata


def test_png_rgb_of_16_bits(tmp_path: Path) -> None:
    picture = smooth("uint16", 3)
    rows = picture.astype(">u2").view(np.uint8).reshape(HEIGHT, -1)
    path = tmp_path / "deep.png"
    path.write_bytes(bare_png(WIDTH, HEIGHT, 16, 2, np.insert(rows, 0, 0, axis=1).tobytes()))
    assert_reads(path, picture)


@pytest.mark.parametrize("bits", [2, 4])
def test_png_gray_of_few_bits_is_stretched(tmp_path: Path, bits: int) -> None:
    packed = np.random.default_rng(4).integers(0, 256, (6, 2), dtype=np.uint8)
    path = tmp_path / "few.png"
    path.write_bytes(bare_png(16 // bits, 6, bits, 0, np.insert(packed, 0, 0, axis=1).tobytes()))
    assert_reads(path, np.asarray(Image.open(path).convert("L")))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kind", ["gray", "rgb"])
def test_jpeg_windows_equal_the_whole(
    tmp_path: Path, kind: str, progressive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.readers.image._BAND_BYTES", 3000)
    image, _ = pillow_picture(kind)
    path = tmp_path / "scan.jpg"
    exif = Image.Exif()
    exif[274] = 6
    image.save(path, quality=95, subsampling=0, progressive=progressive, dpi=(200, 300), exif=exif)
    with Image.open(path) as whole:
        metadata = assert_reads(path, np.asarray(whole), tolerance=2)  # two libjpegs round differently
    expected = {"format": "JPEG", "compression": "jpeg", "resolution": [200.0, 300.0, "inch"], "orientation": 6}
    assert metadata == expected


def test_sidecar_files_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    Image.fromarray(smooth("uint8")).save(path)
    metadata = read_metadata(path)
    (tmp_path / "scan.png.aux.xml").write_text(
        '<PAMDataset><Metadata><MDI key="EXIF_Orientation">6</MDI></Metadata></PAMDataset>'
    )
    assert read_metadata(path) == metadata | {"dropped": ["scan.png.aux.xml beside it (not read)"]}
    assert sorted(found.name for found in tmp_path.iterdir()) == ["scan.png", "scan.png.aux.xml"]


def read_metadata(path: Path) -> dict[str, Any]:
    with open_scan(path) as reader:
        return dict(reader.info.metadata)


# What opening does, whatever the format


def test_the_ending_does_not_matter(tmp_path: Path) -> None:
    for ending, name in itertools.product(("PNG", "TIFF"), ("scan.jpg", "scan", "scan.tif")):
        path = tmp_path / name
        Image.fromarray(smooth("uint8")).save(path, format=ending)
        assert_reads(path, smooth("uint8"))
    assert {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".webp"} <= set(SCANS)


def test_strange_names(tmp_path: Path) -> None:
    for name in ("a b.png", "x!y.png", "zip+file:z.png", "ünï%20.png", "-.tif", "*.tif"):
        path = tmp_path / name
        Image.fromarray(smooth("uint8")).save(path)
        assert_reads(path, smooth("uint8"))


def test_reading_after_close_or_with_a_step(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, smooth("uint8"))
    reader = open_scan(path)
    with pytest.raises(UsageError, match="step"):
        reader.read(slice(0, 9, 2), slice(0, 9))
    reader.close()
    reader.close()
    with pytest.raises(UsageError, match="close"):
        reader.read(slice(0, 1), slice(0, 1))
    with pytest.raises(UsageError, match="limit_pixels"):
        open_scan(path, ReadOptions(limit_pixels=0))


# What is refused


def test_missing_and_folders(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.tif", ScanNotFoundError, "no such file")
    assert_refused(tmp_path, ScanNotFoundError, "folder")
    with pytest.raises(FileNotFoundError):
        open_scan(tmp_path / "none.tif")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    assert_refused(tmp_path / "pipe.tif", ScanNotFoundError, "regular file")


def test_a_line_break_in_a_name_stays_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "a\nb.tif").write_bytes(b"")
    with pytest.raises(ScanUnreadableError) as caught:
        open_scan(tmp_path / "a\nb.tif")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "kind", "word"),
    [
        (b"", ScanUnreadableError, "empty"),
        (b"hello, world\n", ScanUnreadableError, "not an image"),
        (b"<VRTDataset><VRTRasterBand/></VRTDataset>", ScanUnreadableError, "not an image"),
        (b"II*\0", ScanDamagedError, "damaged"),
        (b"II*\0\xff\xff\xff\x7f", ScanDamagedError, ""),
        (b"MM\0+\0\x08\0\0" + b"\xff" * 30, ScanDamagedError, ""),
        (b"\x89PNG\r\n\x1a\n", ScanDamagedError, "PNG"),
        (b"\xff\xd8\xff\xe0", ScanDamagedError, "JPEG"),
        (b"GIF89a" + b"\0" * 40, ScanDamagedError, "GIF"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", ScanDamagedError, "JPEG 2000"),
        (b"8BPS\0\1", ScanUnsupportedError, "Photoshop"),
        (b"%PDF-1.7", ScanUnsupportedError, "PDF"),
    ],
)
def test_contents_that_are_no_scan(tmp_path: Path, content: bytes, kind: type[ScanError], word: str) -> None:
    (tmp_path / "bad.tif").write_bytes(content)
    assert_refused(tmp_path / "bad.tif", kind, word)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_sample_types_that_are_not_handled(tmp_path: Path, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "t.tif", np.ones((20, 20), dtype=dtype), photometric="minisblack")
    assert_refused(tmp_path / "t.tif", ScanUnsupportedError, "convert")


def test_colour_models_that_are_not_handled(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "five.tif", smooth("uint8", 5), photometric="minisblack", planarconfig="contig")
    assert_refused(tmp_path / "five.tif", ScanUnsupportedError, "5 channels")


STORED = {
    "raw.tif": {"rowsperstrip": 11},
    "deflate.tif": {"tile": (32, 32), "compression": "zlib"},
    "lzw.tif": {"rowsperstrip": 11, "compression": "lzw"},
    "jpeg.tif": {"tile": (32, 32), "compression": "jpeg"},
}


def write_any(path: Path) -> bytes:
    if path.suffix == ".tif":
        tifffile.imwrite(path, smooth("uint8"), **STORED[path.name])
    else:
        # JPEG decoders see the whole of a small file; a larger one is cut within its coded data.
        Image.fromarray(smooth("uint8", 3, (400, 300))).save(path, progressive=path.stem == "progressive")
    return path.read_bytes()


ANY = (*STORED, "scan.png", "scan.jpg", "progressive.jpg")


@pytest.mark.parametrize("name", ANY)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_cut_files_are_refused_not_filled(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    whole = write_any(path)
    path.write_bytes(whole[: int(len(whole) * share)])
    assert_refused(path, ScanDamagedError)


@pytest.mark.parametrize("name", ["scan.jpg", "progressive.jpg"])
def test_jpeg_cut_with_an_end_marker_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    whole = write_any(path)
    path.write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    assert_refused(path, ScanDamagedError, "damaged")


@pytest.mark.parametrize("name", ["deflate.tif", "scan.png"])
def test_one_wrong_byte_in_deflated_data_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    damaged = bytearray(write_any(path))
    damaged[len(damaged) // 2] ^= 0x5A
    path.write_bytes(damaged)
    assert_refused(path, ScanDamagedError, "damaged")


@examples(60)
@given(name=st.sampled_from(ANY), changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6))
def test_damage_anywhere_gives_pixels_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, changes: list[tuple[float, int]]
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / name
    damaged = bytearray(write_any(path))
    for place, value in changes:
        damaged[int(place**3 * (len(damaged) - 1))] = value  # more often near the head, where the tags are
    path.write_bytes(damaged)
    try:
        with open_scan(path, ReadOptions(limit_pixels=10**6)) as reader:
            assert reader.read(slice(None), slice(None)).shape[:2] == reader.info.shape_yx
    except ScanError:
        assert_refused_again(path)


def assert_refused_again(path: Path) -> None:
    with pytest.raises(ScanError) as caught:
        read_whole(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [10**6, 10**5])
@pytest.mark.parametrize("kind", ["tif", "deflate.tif", "png"])
def test_bombs_are_refused_before_memory_is_asked_for(tmp_path: Path, kind: str, side: int) -> None:
    path = tmp_path / f"bomb.{kind}"
    if kind == "png":
        path.write_bytes(bare_png(side, side, 8, 0, b"\0" * 50))
    else:
        path.write_bytes(bare_tiff(side, side, bits=8, compression=8 if kind[0] == "d" else 1, data=b"\0" * 8))
    tracemalloc.start()
    try:
        with pytest.raises(ScanError):
            open_scan(path, ReadOptions(limit_pixels=10**9))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    if side == 10**6:
        assert_refused(path, ScanUnsupportedError, "limit")


def test_the_limit_is_inclusive(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, smooth("uint8"))
    open_scan(path, ReadOptions(limit_pixels=HEIGHT * WIDTH)).close()
    with pytest.raises(ScanUnsupportedError, match="limit"):
        open_scan(path, ReadOptions(limit_pixels=HEIGHT * WIDTH - 1))


def test_nothing_is_printed_or_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ANY:
        whole = write_any(tmp_path / name)
        (tmp_path / name).write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
        assert_refused(tmp_path / name, ScanDamagedError)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def bare_tiff(width: int, height: int, *, bits: int, data: bytes, compression: int = 1) -> bytes:
    """A little-endian gray TIFF with one strip, as few bytes as its tags allow."""
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits),
        (259, 3, compression),
        (262, 3, 1),
        (273, 4, 8 + 2 + 12 * 9 + 4),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(data)),
    ]
    entries = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + data


def bare_png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
