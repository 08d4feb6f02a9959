"""Export: segments, threads and fast paths change nothing in the picture; memory does not follow the scan's size."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from pipeline.colour.lab import chroma_from_half, lightness_from_samples, samples_from_lab
from pipeline.errors import StoreError
from pipeline.export import export_picture, output_image, render_rgb
from pipeline.formats import tiff as writer
from pipeline.store import SCAN_SHARD_PX, BlockTiming, ScanStore, Source
from pipeline.tiling.grid import TileGrid
from pipeline.types import Roi, ScanInfo
from tests.pipeline.plain import coloured

BLOCK_PX = 512


def make_store(folder, shape_yx, channels=1, dtype="uint8", metadata=None, scale=1.0, seed=0):
    """A store of noise with one finished version of noisy colours; and both as plain arrays."""
    rng = np.random.default_rng(seed)
    shape = shape_yx if channels == 1 else (*shape_yx, 3)
    scan = rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    chroma = rng.normal(0, 25, (2, *shape_yx)).astype(np.float16)
    info = ScanInfo(shape_yx, channels, dtype, metadata or {})
    store = ScanStore.create(folder / "a.zarr", info, Source("a.tif", 1, "0"))
    for y in range(0, shape_yx[0], SCAN_SHARD_PX):
        for x in range(0, shape_yx[1], SCAN_SHARD_PX):
            roi = Roi(y, y + SCAN_SHARD_PX, x, x + SCAN_SHARD_PX).clipped(shape_yx)
            store.write_scan(roi, scan[roi.rows, roi.columns])
    version = store.create_version("v", {}, BLOCK_PX, scale, "2000-01-01")
    size = (BLOCK_PX, BLOCK_PX)
    for block in TileGrid.of(shape_yx, size, size).blocks(BLOCK_PX):
        part = chroma[:, block.write_roi.rows, block.write_roi.columns].astype(np.float32)
        version.write(block.index_yx, coloured(part), version.attempt, BlockTiming(1, 0.0))
    version.finish()
    return store, version, scan, chroma


def plainly_composed(scan, chroma, scale=1.0):
    single = chroma.astype(np.float32) * np.float32(scale)
    return samples_from_lab(lightness_from_samples(scan), single, scan.dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_is_what_whole_arrays_make(tmp_path, monkeypatch, channels, dtype):
    monkeypatch.setattr(writer, "_SEGMENT_PX", 2**18)
    monkeypatch.setattr("pipeline.support.row_bands.STRIP_PX", 5_000)
    store, version, scan, chroma = make_store(tmp_path, (701, 1303), channels, dtype)
    summary = export_picture("tiff", tmp_path / "a.tif", output_image(store, version, "", ""), 2)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), plainly_composed(scan, chroma))
    assert summary.levels_yx[0] == (701, 1303)


def test_a_window_is_that_part_of_the_whole(tmp_path):
    store, version, scan, chroma = make_store(tmp_path, (300, 900))
    expected = plainly_composed(scan, chroma)[17:290, 450:801]
    np.testing.assert_array_equal(render_rgb(store, version, Roi(17, 290, 450, 801)), expected)


def test_stored_chroma_is_scaled(tmp_path):
    store, version, scan, _ = make_store(tmp_path, (40, 50), scale=0.0)
    gray = render_rgb(store, version, Roi(0, 40, 0, 50))
    np.testing.assert_array_equal(gray, np.repeat(scan[..., None], 3, axis=2))


@pytest.mark.parametrize("scale", [0.0, 1.0, 0.8, 137.0])
def test_every_finite_half_becomes_the_single_that_numpy_makes(scale):
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    np.testing.assert_array_equal(chroma_from_half(finite, scale), finite.astype(np.float32) * np.float32(scale))


def test_threads_do_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_SEGMENT_PX", 2**18)
    metadata = {"resolution": [300.0, 300.0, "inch"], "orientation": 6}
    store, version, *_ = make_store(tmp_path, (1100, 1300), metadata=metadata)
    for threads in (1, 2, 5):
        export_picture("tiff", tmp_path / f"{threads}.tif", output_image(store, version, "program", "about"), threads)
    assert len({path.read_bytes() for path in tmp_path.glob("*.tif")}) == 1


@pytest.mark.parametrize("shape_yx", [(1024, 40_000), (40_000, 700)])
def test_what_is_read_at_once_is_bounded_however_large_the_scan(tmp_path, monkeypatch, shape_yx):
    asked = []

    class Endless:
        info = ScanInfo(shape_yx, 1, "uint8", {})

        def read_scan(self, roi):
            asked.append(roi)
            return np.zeros(roi.shape_yx, np.uint8)

        def uncoloured(self, roi, mask):
            return None

        def window(self, roi):
            return lambda rows, lightness, bare: np.zeros((2, *lightness.shape), np.float32)

    export_picture("tiff", tmp_path / "a.tif", output_image(Endless(), Endless(), "", ""), 2)
    areas = [np.prod(roi.shape_yx) for roi in asked]
    assert max(areas) <= 2**20
    assert sum(areas) == np.prod(shape_yx)


def test_a_damaged_store_leaves_no_picture(tmp_path):
    store, version, *_ = make_store(tmp_path, (600, 600))
    shard = next(path for path in (version.path / "chroma" / "c").rglob("*") if path.is_file())
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(StoreError, match="damaged"):
        export_picture("tiff", tmp_path / "a.tif", output_image(store, version, "", ""), 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]
