"""A drive that fails for a moment is no damage: nothing of a scan is lost to it, not even under salvage."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import ScanUnreachableError, ScanUnreadableError
from pipeline.readers import open_scan
from pipeline.types import ReadOptions

FILES, NO_MEMORY = Path("/proc/self/fd"), Path("/proc/self/mem")
pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.skipif(not NO_MEMORY.exists() or not FILES.exists(), reason="needs Linux"),
]
EVERYTHING = slice(None), slice(None)
SALVAGE = ReadOptions(salvage=True)
SHAPE_YX = 400, 1500


@contextlib.contextmanager
def failing(path: Path) -> Iterator[None]:
    """Whatever this process has open of ``path`` gives EIO, as a drive that was pulled out: the first page of memory is
    never there. The name leads nowhere either."""
    found = [int(each.name) for each in FILES.iterdir() if os.path.realpath(each) == str(path)]
    assert found
    kept = [os.dup(number) for number in found]
    broken = os.open(NO_MEMORY, os.O_RDONLY)
    away = path.with_name("away")
    path.rename(away)
    try:
        for number in found:
            os.lseek(broken, 0, 0)
            os.dup2(broken, number)
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(found[0], 10, 0)
        yield
    finally:
        for number, original in zip(found, kept, strict=True):
            os.dup2(original, number)
            os.close(original)
        os.close(broken)
        away.rename(path)


def tiff(path: Path, picture: NDArray[Any]) -> None:
    tifffile.imwrite(path, picture, rowsperstrip=16, compression="zlib")


def gdal_tiff(path: Path, picture: NDArray[Any]) -> None:
    """Of one chroma sample for four of light, without compression: GDAL decodes it."""
    rows, columns = (extent // 2 for extent in SHAPE_YX)
    light = picture.reshape(rows, 2, columns, 2).transpose(0, 2, 1, 3).reshape(rows, columns, 4)
    units = np.concatenate([light, np.full((rows, columns, 2), 128, np.uint8)], axis=2)
    entries = {256: 2 * columns, 257: 2 * rows, 258: 8, 259: 1, 262: 6, 277: 3, 278: 2 * rows, 279: units.size}
    entries |= {273: 8 + 2 + 12 * 10 + 4 + 6, 530: 2 | 2 << 16}
    bits_at = 8 + 2 + 12 * 10 + 4
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 10)
    for code, value in sorted(entries.items()):
        kind, count, value = (3, 3, bits_at) if code == 258 else (3, 2, value) if code == 530 else (4, 1, value)
        data += struct.pack("<HHII", code, kind, count, value)
    path.write_bytes(data + bytes(4) + struct.pack("<3H", 8, 8, 8) + units.tobytes())


def other(path: Path, picture: NDArray[Any]) -> None:
    Image.fromarray(picture).save(path)


WRITERS: dict[str, Callable[[Path, NDArray[Any]], None]] = {
    "a.tif": tiff,
    "gdal.tif": gdal_tiff,
    "a.png": other,
    "a.jp2": lambda path, picture: Image.fromarray(picture).save(path, tile_size=(128, 128)),
    "a.pgm": other,
}


def noise() -> NDArray[Any]:
    return np.random.default_rng(3).integers(0, 256, SHAPE_YX, dtype=np.uint8)


@pytest.mark.parametrize("salvage", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_a_drive_that_fails_is_neither_damage_nor_gray(tmp_path: Path, name: str, salvage: bool) -> None:
    path, picture = tmp_path.resolve() / name, noise()
    WRITERS[name](path, picture)
    with open_scan(path, ReadOptions(salvage=salvage)) as reader:
        with failing(path), pytest.raises(ScanUnreachableError, match="try again when its drive is there") as caught:
            reader.read(*EVERYTHING)
        assert re.fullmatch(rf"{re.escape(str(path))}: [^\n]*", str(caught.value))
        assert reader.missing_regions == ()
    with open_scan(path, ReadOptions(salvage=salvage)) as reader:
        samples = reader.read(*EVERYTHING)
    np.testing.assert_array_equal(samples if samples.ndim == 2 else samples[:, :, 0], picture)


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_reader_goes_on_when_the_drive_is_back(tmp_path: Path, name: str) -> None:
    path, picture = tmp_path.resolve() / name, noise()
    WRITERS[name](path, picture)
    with open_scan(path, SALVAGE) as reader:
        with failing(path), pytest.raises(ScanUnreachableError):
            reader.read(*EVERYTHING)
        samples = reader.read(*EVERYTHING)
        assert reader.missing_regions == ()
    np.testing.assert_array_equal(samples if samples.ndim == 2 else samples[:, :, 0], picture)


@pytest.mark.parametrize("name", WRITERS)
def test_damage_is_still_damage(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, noise())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ScanUnreadableError), open_scan(path) as reader:
        reader.read(*EVERYTHING)


WANTING = """
import resource, sys
from pathlib import Path
from pipeline.readers import open_scan
from pipeline.types import ReadOptions

with open_scan(Path(sys.argv[1]), ReadOptions(salvage=True)) as reader:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**25, limits[1]))
    try:
        reader.read(slice(0, 10), slice(0, 10))
    except MemoryError:
        print("memory")
    resource.setrlimit(resource.RLIMIT_AS, limits)
    print(reader.missing_regions, reader.read(slice(0, 10), slice(0, 10)).any())
"""


@pytest.mark.e2e
def test_want_of_memory_is_no_damage(tmp_path: Path) -> None:
    """In a process of its own: one that has run for long has memory left to take."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8192, 8192), np.uint16), compression="zlib", rowsperstrip=8192)
    told = subprocess.run([sys.executable, "-c", WANTING, str(path)], capture_output=True, text=True, check=True)
    assert told.stdout.split("\n")[:2] == ["memory", "() False"]
