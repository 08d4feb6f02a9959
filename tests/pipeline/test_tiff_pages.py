"""TIFFs of several pages: a chain of directories that breaks off is said, and a long one costs little."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from pipeline.errors import ScanUnreadableError
from pipeline.readers import open_scan, page_count
from pipeline.types import ReadOptions

pytestmark = pytest.mark.filterwarnings("error")

EVERYTHING = slice(None), slice(None)
SALVAGE = ReadOptions(salvage=True)


def written(path: Path, pages: int, *, bigtiff: bool = False, byteorder: str = "<") -> list[NDArray[Any]]:
    pictures = list(np.random.default_rng(4).integers(0, 256, (pages, 24, 32), dtype=np.uint8))
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder) as file:
        for picture in pictures:
            file.write(picture, metadata=None, contiguous=False)
    return pictures


def directories(path: Path) -> list[int]:
    with tifffile.TiffFile(path) as file:
        return [page.offset for page in file.pages]


def lead_to(path: Path, page: int, offset: int) -> None:
    """Let what follows a page (from 0) of a little-endian TIFF be at ``offset``."""
    at, data = directories(path)[page], bytearray(path.read_bytes())
    struct.pack_into("<I", data, at + 2 + 12 * struct.unpack_from("<H", data, at)[0], offset)
    path.write_bytes(data)


def read(path: Path, reading: ReadOptions) -> tuple[NDArray[Any], dict[str, Any]]:
    with open_scan(path, reading) as reader:
        return reader.read(*EVERYTHING), dict(reader.info.metadata)


def assert_lost_after(path: Path, pictures: list[NDArray[Any]]) -> None:
    """That many pages are left: an error, or under salvage those pages and a word on the others."""
    count = len(pictures)
    for attempt in (
        lambda: page_count(path),
        lambda: open_scan(path),
        lambda: open_scan(path, ReadOptions(page=count)),
    ):
        with pytest.raises(ScanUnreadableError, match=f"cut off: only {count} page") as caught:
            attempt()
        assert str(caught.value).startswith(str(path))
    assert page_count(path, SALVAGE) == count
    for number, picture in enumerate(pictures, 1):
        samples, metadata = read(path, ReadOptions(page=number, salvage=True))
        np.testing.assert_array_equal(samples, picture)
        assert any(f"pages after page {count}" in each for each in metadata["dropped"])


@pytest.mark.parametrize(("bigtiff", "byteorder"), [(False, "<"), (False, ">"), (True, "<")])
@pytest.mark.parametrize("there", [0, 1, 20])
def test_a_chain_that_is_cut_off_is_said(tmp_path: Path, bigtiff: bool, byteorder: str, there: int) -> None:
    path = tmp_path / "cut.tif"
    pictures = written(path, 6, bigtiff=bigtiff, byteorder=byteorder)
    assert page_count(path) == 6
    os.truncate(path, directories(path)[3] + there)
    assert_lost_after(path, pictures[:3])


@pytest.mark.parametrize("tags", [0, 5000])
def test_a_directory_that_is_none_breaks_the_chain(tmp_path: Path, tags: int) -> None:
    path = tmp_path / "none.tif"
    pictures = written(path, 5)
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, directories(path)[2], tags)
    path.write_bytes(data)
    assert_lost_after(path, pictures[:2])


@pytest.mark.parametrize("offset", [1000, 0x20202020, 2**32 - 2])
def test_a_picture_whose_pointer_to_another_is_rubbish_is_read(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "out.tif"
    pictures = written(path, 1)
    assert path.stat().st_size <= 1100
    lead_to(path, 0, max(offset, path.stat().st_size))
    assert_loose(path, pictures)
    os.truncate(path, path.stat().st_size - 1)  # within the picture
    with pytest.raises(ScanUnreadableError, match="cut off"):
        open_scan(path)


@pytest.mark.parametrize("pages", [1, 3])
@pytest.mark.parametrize("there", [0, 3])
def test_a_last_pointer_that_is_not_there_is_said(tmp_path: Path, pages: int, there: int) -> None:
    path = tmp_path / "none.tif"
    pictures = written(path, pages)
    last, data = directories(path)[-1], path.read_bytes()
    entries = data[last : last + 2 + 12 * struct.unpack_from("<H", data, last)[0]]
    path.write_bytes(data + entries + bytes(there))
    if pages == 1:
        path.write_bytes(data[:4] + struct.pack("<I", len(data)) + path.read_bytes()[8:])
    else:
        lead_to(path, pages - 2, len(data))
    assert_loose(path, pictures)


def assert_loose(path: Path, pictures: list[NDArray[Any]]) -> None:
    """All pictures are read, with a word on others that may be lost."""
    assert page_count(path) == len(pictures)
    for number, picture in enumerate(pictures, 1):
        samples, metadata = read(path, ReadOptions(page=number))
        np.testing.assert_array_equal(samples, picture)
        assert [f"may follow page {len(pictures)}" in each for each in metadata["dropped"]] == [True]


@pytest.mark.timeout(120)
def test_a_loop_late_in_a_long_chain_ends(tmp_path: Path) -> None:
    path = tmp_path / "loop.tif"
    pictures = written(path, 150)
    lead_to(path, 149, directories(path)[120])
    assert page_count(path) == 150
    np.testing.assert_array_equal(read(path, ReadOptions(page=150))[0], pictures[149])


def test_a_page_that_is_damaged_alone_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "one.tif"
    pictures = written(path, 3)
    data = bytearray(path.read_bytes())
    at = directories(path)[1]
    entries = range(at + 2, at + 2 + 12 * struct.unpack_from("<H", data, at)[0], 12)
    width = next(entry for entry in entries if struct.unpack_from("<H", data, entry)[0] == 256)
    struct.pack_into("<HHI", data, width, 256, 4, 0)
    path.write_bytes(data)
    assert page_count(path) == 3
    np.testing.assert_array_equal(read(path, ReadOptions(page=3))[0], pictures[2])
    with pytest.raises(ScanUnreadableError):
        open_scan(path, ReadOptions(page=2))


def test_opening_a_page_does_not_take_a_look_at_all_others(tmp_path: Path) -> None:
    def seconds(pages: int) -> float:
        path = tmp_path / f"{pages}.tif"
        written(path, pages)
        os.utime(path, (1e9, 1e9))
        open_scan(path, ReadOptions(page=pages)).close()
        taken = []
        for _ in range(5):
            begin = time.perf_counter()
            open_scan(path, ReadOptions(page=pages)).close()
            taken.append(time.perf_counter() - begin)
        return min(taken)

    few, many = seconds(10), seconds(1500)
    assert many < 4 * few, (few, many)


def test_a_file_that_was_replaced_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "again.tif"
    written(path, 3)
    os.utime(path, (1e9, 1e9))
    assert page_count(path) == page_count(path) == 3
    written(path, 5)
    os.utime(path, (1e9, 1e9))
    assert page_count(path) == 5


@pytest.mark.parametrize(("bigtiff", "byteorder"), [(False, "<"), (False, ">"), (True, "<")])
def test_only_the_picture_of_an_aperio_slide_is_a_page(tmp_path: Path, bigtiff: bool, byteorder: Any) -> None:
    path, slide = tmp_path / "a.svs", np.random.default_rng(0).integers(0, 256, (200, 331), dtype=np.uint8)
    write_slide(path, slide, "Aperio Image Library v11", bigtiff=bigtiff, byteorder=byteorder)
    assert page_count(path) == 2  # with the label, which is of another shape
    samples, metadata = read(path, ReadOptions())
    np.testing.assert_array_equal(samples, slide)
    assert metadata["pages"] == 2
    np.testing.assert_array_equal(read(path, ReadOptions(page=2))[0], slide[:150, :20])


def test_like_pages_of_any_other_file_stay_pages(tmp_path: Path) -> None:
    path, slide = tmp_path / "a.tif", np.random.default_rng(0).integers(0, 256, (200, 331), dtype=np.uint8)
    write_slide(path, slide, "Album of smaller and smaller prints")
    assert page_count(path) == 5


@pytest.mark.parametrize("bigtiff", [False, True])
def test_an_aperio_slide_with_a_description_nowhere(tmp_path: Path, bigtiff: bool) -> None:
    path, slide = tmp_path / "a.svs", np.random.default_rng(0).integers(0, 256, (200, 331), dtype=np.uint8)
    write_slide(path, slide, "Aperio Image Library v11", bigtiff=bigtiff)
    data = bytearray(path.read_bytes())
    entry = data.index(struct.pack("<HH", 270, 2))
    struct.pack_into("<Q" if bigtiff else "<I", data, entry + (12 if bigtiff else 8), 2 ** (64 if bigtiff else 32) - 1)
    path.write_bytes(data)
    assert page_count(path) == 5


def write_slide(path: Path, slide: NDArray[Any], words: str, **options: Any) -> None:
    """A picture, its thumbnail, two levels and a label, one after the other."""
    with tifffile.TiffWriter(path, **options) as file:
        for picture, tile in (
            (slide, True),
            (slide[::4, ::4], False),
            (slide[::2, ::2], True),
            (slide[::4, ::4], True),
        ):
            size = {"tile": (32, 32)} if tile else {}
            file.write(picture, metadata=None, description=words, photometric="minisblack", **size)
        file.write(slide[:150, :20], metadata=None, description=words)
