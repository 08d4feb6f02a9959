"""The pyramid writer: pixels exact, levels plain means, nothing left behind when something breaks."""

from __future__ import annotations

import errno
import io
import itertools
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import OutputError, ScanUnreadableError, UsageError
from pipeline.formats import tiff as writer
from pipeline.formats._pyramid import halve, pyramid_levels
from pipeline.formats.picture import SRGB_PROFILE, OutputImage
from pipeline.formats.tiff import is_bigtiff_needed, write_pyramid

SIZES_YX = [(1, 1), (3, 700), (700, 3), (257, 513), (1100, 300)]


def picture(shape_yx, dtype, seed=0):
    maximum = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, maximum, (*shape_yx, 3), dtype, endpoint=True)


def output_image(image, **said):
    return OutputImage(image.shape[:2], image.dtype, lambda *window: image[window], channels=image.shape[2], **said)


def write(path, image, tile_px=256, compression="deflate", threads=2, **said):
    options = {"tile_px": tile_px, "compression": compression, "threads": threads}
    return write_pyramid(path, output_image(image, **said), **options)


def zeros(rows, columns):
    return np.zeros((rows.stop - rows.start, columns.stop - columns.start, 3), np.uint8)


def plain_half(image):
    height, width = image.shape[:2]
    result = np.empty(((height + 1) // 2, (width + 1) // 2, 3))
    for y, x in np.ndindex(result.shape[:2]):
        result[y, x] = image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean(axis=(0, 1))
    return result


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("compression", ["deflate", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape_yx", SIZES_YX)
def test_pixels_come_back_exactly(tmp_path, shape_yx, dtype, compression):
    image = picture(shape_yx, dtype)
    summary = write(tmp_path / "a.tif", image, compression=compression)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), image)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        np.testing.assert_array_equal(np.moveaxis(dataset.read(), 0, -1), image)
    bgr = cv2.imread(str(tmp_path / "a.tif"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(bgr[..., ::-1], image)
    assert summary.bytes == (tmp_path / "a.tif").stat().st_size
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape_yx", SIZES_YX)
def test_levels_are_means_of_two_by_two(tmp_path, shape_yx, dtype):
    summary = write(tmp_path / "a.tif", picture(shape_yx, dtype))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        main = file.pages[0]
        pages = [main, *(main.pages or [])]
        assert tuple(page.shape[:2] for page in pages) == summary.levels_yx == pyramid_levels(shape_yx, 256)
        assert all(page.is_tiled and page.predictor == 2 and page.photometric == 2 for page in pages)
        assert [int(page.subfiletype) for page in pages] == [0] + [1] * (len(pages) - 1)
        assert max(pages[-1].shape[:2]) <= 256
        for larger, smaller in itertools.pairwise(pages):
            expected = plain_half(larger.asarray().astype(float))
            assert np.abs(smaller.asarray() - expected).max() <= 0.5


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_halving_equals_the_plain_rounded_mean(dtype):
    image = picture((6, 40_000), dtype).astype(np.uint32)
    total = image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]
    difference = np.abs(halve(image.astype(dtype)) - total / 4)
    assert difference.max() <= 0.5


def test_gdal_finds_the_levels(tmp_path):
    write(tmp_path / "a.tif", picture((1100, 600), "uint8"))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert [level.shape[:2] for level in file.series[0].levels] == [(1100, 600), (550, 300), (275, 150), (138, 75)]


def asked_windows(path, image):
    asked = []

    def read_window(rows, columns):
        asked.append((rows, columns))
        return image[rows, columns]

    write_pyramid(path, OutputImage(image.shape[:2], image.dtype, read_window), threads=1)
    return asked


def test_a_narrow_picture_is_asked_for_in_bands(tmp_path):
    asked = asked_windows(tmp_path / "a.tif", picture((1300, 64), "uint8"))
    assert asked == [(slice(y0, y1), slice(0, 64)) for y0, y1 in [(0, 512), (512, 1024), (1024, 1300)]]


def test_a_wide_picture_is_asked_for_in_segments_of_bounded_area_each_pixel_once(tmp_path):
    image = np.broadcast_to(np.uint8(7), (513, 20_000, 3))
    asked = asked_windows(tmp_path / "a.tif", image)
    times = np.zeros(image.shape[:2], np.uint8)
    for window in asked:
        times[window] += 1
    assert (times == 1).all()
    assert asked == sorted(asked, key=lambda window: (window[0].start, window[1].start))
    assert max(np.size(times[window]) for window in asked) <= 2**20


def plain_levels(image):
    """Every level as an array of its own, halved as a whole."""
    levels = [image]
    while max(levels[-1].shape[:2]) > 16:
        levels.append(halve(levels[-1]))
    return levels


def plain_tiles(level):
    """Tiles of a whole array, padded, with imagecodecs' horizontal predictor, compressed."""
    padded = np.pad(level, [(0, -level.shape[0] % 16), (0, -level.shape[1] % 16), (0, 0)])
    for y in range(0, padded.shape[0], 16):
        for x in range(0, padded.shape[1], 16):
            tile = np.ascontiguousarray(padded[y : y + 16, x : x + 16])
            # The level that is the cheapest for samples of this size: tests.benchmarks.compression.
            yield imagecodecs.deflate_encode(imagecodecs.delta_encode(tile, axis=1), level=3 - tile.itemsize)


def write_plainly(path, image, compression):
    """The same file from whole arrays, laid out by tifffile alone."""
    options = {"photometric": "rgb", "tile": (16, 16), "metadata": None, "software": False}
    first, *others = plain_levels(image)
    with tifffile.TiffWriter(path, bigtiff=False) as tiff:
        for level in (first, *others):
            main = {"subifds": len(others), "iccprofile": SRGB_PROFILE}
            kind = main if level is first else {"subfiletype": 1}
            if compression == "none":
                tiff.write(level, **kind, **options)
                continue
            encoded = {"compression": "adobe_deflate", "predictor": True, "shape": level.shape, "dtype": level.dtype}
            tiff.write(plain_tiles(level), **encoded, **kind, **options)


@pytest.mark.parametrize("compression", ["deflate", "none"])
@given(
    shape_yx=st.tuples(st.integers(1, 130), st.integers(1, 300)),
    dtype=st.sampled_from(["uint8", "uint16"]),
    segment_px=st.sampled_from([1, 1024, 4096, 10_000]),
    segment_rows=st.sampled_from([16, 32, 48]),
    held_bytes=st.sampled_from([0, 2**20]),
    threads=st.integers(1, 3),
)
def test_segments_make_the_bytes_of_whole_arrays(
    tmp_path_factory, compression, shape_yx, dtype, segment_px, segment_rows, held_bytes, threads
):
    folder = tmp_path_factory.mktemp("segments")
    image = picture(shape_yx, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_SEGMENT_PX", segment_px)
        patch.setattr(writer, "_SEGMENT_ROWS", segment_rows)
        patch.setattr(writer, "_HELD_BYTES", held_bytes)
        write(folder / "a.tif", image, tile_px=16, compression=compression, threads=threads)
    write_plainly(folder / "b.tif", image, compression)
    assert (folder / "a.tif").read_bytes() == (folder / "b.tif").read_bytes()
    assert sorted(entry.name for entry in folder.iterdir()) == ["a.tif", "b.tif"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_same_bytes_whatever_the_threads(tmp_path, dtype):
    image = picture((1300, 2600), dtype)
    for threads in (1, 2, 5):
        write(tmp_path / f"{threads}.tif", image, threads=threads, software="s", description="d")
    files = {(tmp_path / f"{threads}.tif").read_bytes() for threads in (1, 2, 5)}
    assert len(files) == 1


def test_metadata(tmp_path):
    said = {"software": "program 1", "description": "Köln, Straße\0 \udcff", "resolution": (300.0, 240.0, "cm")}
    write(tmp_path / "a.tif", picture((300, 300), "uint8"), **said, orientation=6)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages[0].tags
        assert tags["Software"].value == "program 1"
        assert tags["ImageDescription"].value == "Köln, Straße  \\udcff"
        assert (tags["XResolution"].value, tags["YResolution"].value) == ((300, 1), (240, 1))
        assert tags["ResolutionUnit"].value == 3
        assert tags["Orientation"].value == 6
        assert "DateTime" not in tags
        assert "Software" not in file.pages[0].pages[0].tags


@pytest.mark.parametrize("broken", [{"orientation": 9}, {"resolution": (1.0, 1.0, "mile")}])
def test_impossible_metadata_is_refused(tmp_path, broken):
    with pytest.raises(UsageError):
        write(tmp_path / "a.tif", picture((4, 4), "uint8"), **broken)
    assert not list(tmp_path.iterdir())


def test_bigtiff_only_where_needed(tmp_path, monkeypatch):
    assert not is_bigtiff_needed((30_000, 30_000), np.dtype("uint8"), 256)
    assert is_bigtiff_needed((32_768, 32_768), np.dtype("uint8"), 256)
    assert is_bigtiff_needed((30_000, 30_000), np.dtype("uint16"), 256)
    monkeypatch.setattr(writer, "_CLASSIC_MAX_BYTES", 1000)
    image = picture((300, 300), "uint8")
    write(tmp_path / "a.tif", image)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff
        np.testing.assert_array_equal(file.asarray(), image)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "failure", [ScanUnreadableError("damaged"), FileNotFoundError("gone"), KeyboardInterrupt(), MemoryError()]
)
def test_failure_while_reading_leaves_the_old_file_alone(tmp_path, failure, threads):
    (tmp_path / "a.tif").write_bytes(b"old")

    def read_window(rows, columns):
        if rows.start:
            raise failure
        return zeros(rows, columns)

    with pytest.raises(type(failure)) as caught:
        write_pyramid(tmp_path / "a.tif", OutputImage((1300, 700), np.dtype("uint8"), read_window), threads=threads)
    assert caught.value is failure
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tif"]
    assert (tmp_path / "a.tif").read_bytes() == b"old"


@pytest.mark.parametrize("window", [np.zeros((9, 10, 3), np.uint8), np.zeros((10, 10, 3), np.uint16)])
def test_a_window_of_the_wrong_kind_is_refused(tmp_path, window):
    with pytest.raises(UsageError, match="sheared"):
        write_pyramid(tmp_path / "a.tif", OutputImage((10, 10), np.dtype("uint8"), lambda rows, columns: window))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"tile_px": 100}, {"compression": "jpeg"}])
def test_impossible_options_are_refused(tmp_path, options):
    with pytest.raises(UsageError):
        write(tmp_path / "a.tif", picture((4, 4), "uint8"), **options)


def test_folder_that_cannot_hold_files(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"a\.tif: cannot be written .*; check"):
        write(tmp_path / "file" / "a.tif", picture((4, 4), "uint8"))


def test_target_that_is_a_folder(tmp_path):
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(OutputError):
        write(tmp_path / "a.tif", picture((4, 4), "uint8"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_while_halving(tmp_path, monkeypatch, code):
    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(code, "no")

    monkeypatch.setattr("pipeline.support.scratch.tempfile.TemporaryFile", lambda dir: Full())
    with pytest.raises(OutputError, match="disk full or quota") as caught:
        write(tmp_path / "a.tif", picture((700, 300), "uint8"))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


FILL = """
import resource, sys
from pathlib import Path
import numpy as np
from pipeline.errors import OutputError
from pipeline.formats import OutputImage
from pipeline.formats.tiff import write_pyramid
noise = np.random.default_rng(0).integers(0, 256, (1300, 900, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    path, compression = Path(sys.argv[1]), sys.argv[2]
    picture = OutputImage(noise.shape[:2], noise.dtype, lambda *window: noise[window])
    write_pyramid(path, picture, compression=compression)
except OutputError as error:
    print(error)
"""


@pytest.mark.e2e
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
@pytest.mark.parametrize("compression", ["deflate", "none"])
def test_file_size_limit(tmp_path, compression):
    command = [sys.executable, "-c", FILL, str(tmp_path / "a.tif"), compression]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1
    assert result.stdout.startswith(f"{tmp_path / 'a.tif'}: ")
    assert "disk full or quota" in result.stdout or compression == "none"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("longer_yx", [(8192, 1024), (16_384, 1024), (1024, 8192), (1024, 16_384)])
def test_memory_does_not_grow_with_the_picture(tmp_path, longer_yx):
    peaks = []
    for shape_yx in ((4096, 4096), longer_yx):
        tracemalloc.start()
        write_pyramid(tmp_path / "a.tif", OutputImage(shape_yx, np.dtype("uint8"), zeros))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def plain_weighted_half(colours, weights):
    """Mean of each 2 x 2 by its weights, pixel by pixel; NaN where they are all zero."""
    height, width = weights.shape
    result = np.full(((height + 1) // 2, (width + 1) // 2, 3), np.nan)
    for y, x in np.ndindex(result.shape[:2]):
        part, weight = (each[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(float) for each in (colours, weights))
        if weight.sum():
            result[y, x] = np.average(part.reshape(-1, 3), axis=0, weights=weight.ravel())
    return result


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_transparent_colour_does_not_bleed_into_smaller_levels(tmp_path, dtype):
    maximum = np.iinfo(dtype).max
    colours = picture((601, 515), dtype)
    rng = np.random.default_rng(1)
    opacity = rng.integers(0, maximum, (601, 515), dtype, endpoint=True)
    opacity[rng.random((601, 515)) < 0.5] = 0
    opacity[:300, :256] = maximum
    write(tmp_path / "a.tif", np.dstack([colours, opacity]))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        main = file.pages[0]
        assert (main.photometric, main.extrasamples, main.samplesperpixel) == (2, (2,), 4)
        half = main.pages[0].asarray()
    expected = plain_weighted_half(colours, opacity)
    seen = ~np.isnan(expected)
    assert np.abs(half[..., :3][seen] - expected[seen]).max() <= 0.5
    assert np.abs(half[..., 3:] - plain_half(np.dstack([opacity] * 3))[..., :1]).max() <= 0.5
    np.testing.assert_array_equal(half[:150, :128, :3], halve(colours[:300, :256]))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_reader_sees_the_alpha_channel(tmp_path, dtype):
    image = np.dstack([picture((40, 30), dtype), picture((40, 30), dtype, seed=1)[..., 0]])
    write(tmp_path / "a.tif", image)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.colorinterp[3] == rasterio.enums.ColorInterp.alpha
        np.testing.assert_array_equal(np.moveaxis(dataset.read(), 0, -1), image)
    if dtype == "uint8":  # Pillow has no 16-bit colour
        with Image.open(tmp_path / "a.tif") as found:
            assert found.mode == "RGBA"
            np.testing.assert_array_equal(np.asarray(found), image)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("uint8", 255), ("uint16", 0), ("uint16", 7)])
def test_smaller_levels_are_nodata_only_where_all_is(tmp_path, dtype, nodata):
    rng = np.random.default_rng(2)
    # Means of the neighbours of nodata would often be nodata.
    image = (nodata + rng.choice([-1, 1, 2], (601, 515, 3))).clip(0, np.iinfo(dtype).max).astype(dtype)
    image[image == nodata] = nodata + 1 if nodata == 0 else nodata - 1
    gone = rng.random((601, 515)) < 0.5
    gone[100:200, 100:200] = True
    image[gone] = nodata
    write(tmp_path / "a.tif", image, nodata=nodata)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.nodatavals == (nodata,) * 3
        np.testing.assert_array_equal(dataset.read_masks(1) == 0, gone)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        half = file.pages[0].pages[0].asarray()
        assert file.pages[0].pages[0].nodata == nodata
    expected = plain_weighted_half(image, ~gone)
    there = ~np.isnan(expected[..., 0])
    assert (~there).sum() > 2000
    assert (half[~there] == nodata).all()
    assert (half[there] != nodata).all()
    assert np.abs(half[there] - expected[there]).max() <= 1.5  # rounded, and moved by one where it met nodata


@pytest.mark.parametrize("kind", ["alpha", "nodata"])
def test_same_bytes_whatever_the_threads_with_transparent_parts(tmp_path, kind):
    image = picture((700, 2600), "uint8")
    image[300:600, 1000:2000] = 0
    said = {} if kind == "alpha" else {"nodata": 0}
    image = np.dstack([image, image.max(axis=2)]) if kind == "alpha" else image
    for threads in (1, 3):
        write(tmp_path / f"{threads}.tif", image, threads=threads, **said)
    assert (tmp_path / "1.tif").read_bytes() == (tmp_path / "3.tif").read_bytes()


def test_alpha_and_nodata_at_once_are_refused(tmp_path):
    with pytest.raises(UsageError, match="disagree"):
        write(tmp_path / "a.tif", np.zeros((4, 4, 4), np.uint8), nodata=0)
