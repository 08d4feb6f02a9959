"""TIFFs that say too little of where their strips or tiles lie, as scanners and GDAL write them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from pipeline.errors import ScanUnreadableError
from pipeline.readers import open_scan
from pipeline.types import ReadOptions, ScanInfo

pytestmark = pytest.mark.filterwarnings("error", "ignore:Dataset has no geotransform")

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
WHOLE = slice(None), slice(None)
Encode = Callable[[bytes], bytes]
CODECS: dict[int, Encode] = {1: bytes, 5: imagecodecs.lzw_encode, 8: zlib.compress, 32773: imagecodecs.packbits_encode}
GEOTIFF = {42113: (2, b"7\0")}


def tiff(
    compression: int,
    strips: int = 0,
    *,
    counted: bool = True,
    zero: Collection[int] = (),
    missing: Collection[int] = (),
    more: dict[int, Any] | None = None,
) -> bytes:
    """`PICTURE` in so many strips, or in tiles of 16 x 16.

    Parameters
    ----------
    counted : with the tag of byte counts
    zero : those that have a count of 0
    missing : those that have no place either
    """
    tags: dict[int, Any] = {256: (3, 64), 257: (3, 48), 258: (3, 8), 259: (3, compression), 262: (3, 1), 277: (3, 1)}
    if strips:
        parts = list(PICTURE.reshape(strips, -1, 64))
        tags[278] = 3, 48 // strips
    else:
        parts = [PICTURE[y : y + 16, x : x + 16] for y in range(0, 48, 16) for x in range(0, 64, 16)]
        tags |= {322: (3, 16), 323: (3, 16)}
    file, offsets, counts = bytearray(b"II*\0\0\0\0\0"), [], []
    for at, part in enumerate(parts):
        data = CODECS[compression](np.ascontiguousarray(part).tobytes())
        offsets.append(0 if at in missing else len(file))
        counts.append(0 if at in (*zero, *missing) else len(data))
        file += b"" if at in missing else data
    tags |= {324 - 51 * bool(strips): (4, offsets)} | (more or {})
    if counted:
        tags[325 - 46 * bool(strips)] = 4, counts
    return bytes(_with_directory(file, tags))


def _with_directory(file: bytearray, tags: dict[int, Any]) -> bytearray:
    entries = []
    for code, (kind, values) in sorted(tags.items()):
        listed = values if isinstance(values, list | bytes) else [values]
        data = bytes(listed) if kind == 2 else struct.pack(f"<{len(listed)}{'HI'[kind == 4]}", *listed)
        if len(data) > 4:
            file += data
            data = struct.pack("<I", len(file) - len(data))
        entries.append(struct.pack("<HHI", code, kind, len(listed)) + data.ljust(4, b"\0"))
    struct.pack_into("<I", file, 4, len(file))
    return file + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


def read(path: Path, **options: Any) -> tuple[ScanInfo, NDArray[Any], NDArray[Any] | None]:
    with open_scan(path, ReadOptions(**options)) as reader:
        assert not reader.missing_regions
        return reader.info, reader.read(*WHOLE), reader.read_mask(*WHOLE) if reader.info.mask else None


@pytest.mark.parametrize("salvage", [False, True])
@pytest.mark.parametrize("compression", CODECS)
@pytest.mark.parametrize("strips", [1, 4, 0])
@pytest.mark.parametrize("counted", [True, False])
def test_byte_counts_of_zero_or_none_are_computed(
    tmp_path: Path, strips: int, compression: int, counted: bool, salvage: bool
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(compression, strips, counted=counted, zero=range(99)))
    info, samples, mask = read(path, salvage=salvage)
    np.testing.assert_array_equal(samples, PICTURE)
    assert mask is None
    assert "dropped" not in info.metadata


@pytest.mark.parametrize("strips", [4, 0])
def test_one_byte_count_of_zero_is_computed_where_nothing_is_compressed(tmp_path: Path, strips: int) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(1, strips, zero=[2]))
    np.testing.assert_array_equal(read(path)[1], PICTURE)


@pytest.mark.parametrize("compression", CODECS)
@pytest.mark.parametrize("more", [{}, GEOTIFF])
def test_tiles_that_are_left_out_hold_no_picture(tmp_path: Path, compression: int, more: dict[int, Any]) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(compression, missing=[1, 6], more=more))
    info, samples, mask = read(path)
    assert mask is not None
    there = np.ones(PICTURE.shape, bool)
    there[:16, 16:32] = there[16:32, 32:48] = False
    np.testing.assert_array_equal(samples, np.where(there, PICTURE, 7 * bool(more)))
    np.testing.assert_array_equal(mask, np.where(there & ((PICTURE != 7) | (not more)), 255, 0))
    assert info.mask == "nodata"
    assert info.metadata["dropped"] == ["2 of 12 tiles (left out of the file as empty: no data)"]


@pytest.mark.parametrize("options", [{"tiled": True}, {}, {"compress": "deflate"}, {"interleave": "band"}])
def test_what_gdal_leaves_out_holds_no_picture(tmp_path: Path, options: dict[str, Any]) -> None:
    """Of a file without a place on Earth too, if it is tiled; strips only of one with it."""
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 3, "dtype": "uint8", "sparse_ok": True}
    tiled = "tiled" in options
    profile |= {"blockysize": 32, **options} | ({"blockxsize": 32} if tiled else {"crs": "EPSG:3857"})
    profile |= {} if tiled else {"transform": rasterio.Affine(2, 0, 0, 0, -2, 0)}
    part = np.random.default_rng(1).integers(1, 256, (3, 32, 64), dtype=np.uint8)
    part[0] = 0  # of which GDAL leaves out all blocks, where each band has its own
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(part, window=Window(0, 32, 64, 32))
    info, samples, mask = read(path)
    assert mask is not None
    np.testing.assert_array_equal(samples[32:], np.moveaxis(part, 0, 2))
    assert (mask[:32] == 0).all()
    assert (mask[32:] == 255).all()
    assert ("2 of 4 tiles" if tiled else "1 of 2 strips") in info.metadata["dropped"][0]


@pytest.mark.parametrize("strips", [4, 0])
def test_what_was_never_written_is_refused(tmp_path: Path, strips: int) -> None:
    """Strips without a place, and tiles if none has one: whatever wrote them did not come to its end."""
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(8, strips, missing=[3] if strips else range(12)))
    with pytest.raises(ScanUnreadableError, match="never written"):
        read(path)


@pytest.mark.parametrize("tags", [{278: (4, 0)}, {278: (4, 2**32 - 1)}])
def test_all_rows_in_one_strip(tmp_path: Path, tags: dict[int, Any]) -> None:
    """As 2^32 - 1 says it, and some writers by 0."""
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(1, 1, more=tags))
    np.testing.assert_array_equal(read(path)[1], PICTURE)


def test_lightness_alone(tmp_path: Path) -> None:
    """CIE L*a*b* of one channel (TIFF 6.0, section 23)."""
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(1, 1, more={262: (3, 8)}))
    info, samples, _ = read(path)
    assert info.tone == "lightness"
    np.testing.assert_array_equal(samples, PICTURE.astype(np.uint16) * 257)
