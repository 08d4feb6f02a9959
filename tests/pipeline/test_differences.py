"""The codec of differences: exact for whatever bits, and read by zarr from the array's own metadata."""

import json

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.store import BlockTiming, ScanStore, Source
from pipeline.store.arrays import AGREEMENT_COMPRESSORS
from pipeline.store.differences import NAME, Differences, differences, sums
from pipeline.tiling.infer import BlockResult
from pipeline.tiling.overlap_stats import OverlapStats
from pipeline.types import Roi, ScanInfo

TYPES = ["bool", "uint8", "uint16", ">u2", "int16", "float16", "float32"]


@given(st.data(), st.sampled_from(TYPES), hnp.array_shapes(min_dims=1, max_dims=3, max_side=9))
def test_sums_give_the_same_bits_back(data, dtype, shape):
    dtype = np.dtype(dtype)
    bits = data.draw(hnp.arrays(np.dtype(f"u{dtype.itemsize}"), shape))
    values = (bits % 2 == 0) if dtype.kind == "b" else bits.view(dtype.newbyteorder("=")).astype(dtype)
    axis = data.draw(st.integers(0, len(shape) - 1))
    stored = differences(values, axis)
    assert stored.dtype == dtype
    assert sums(stored, axis).tobytes() == values.tobytes()


@given(hnp.arrays(np.uint16, (2, 5, 7)), st.integers(0, 2))
def test_they_are_what_numpy_says(values, axis):
    plain = np.diff(values, axis=axis, prepend=np.zeros_like(values.take([0], axis)))
    np.testing.assert_array_equal(differences(values, axis), plain)
    np.testing.assert_array_equal(np.add.accumulate(plain, axis=axis, dtype=np.uint16), values)


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_zarr_reads_it_from_the_metadata(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 200, (2, 70, 90)).astype(dtype)
    made = zarr.create_array(
        tmp_path / "a", shape=values.shape, dtype=dtype, chunks=(2, 32, 32), shards=(2, 64, 64), filters=Differences(2)
    )
    made[:] = values
    assert NAME in json.dumps(json.loads((tmp_path / "a" / "zarr.json").read_text()))
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[:, 5:69, 3:80], values[:, 5:69, 3:80])


def smooth(shape_yx):
    """a*, b* as a network makes them: slow, with a little noise."""
    y, x = np.indices(shape_yx)
    waves = np.stack([np.sin(y / 60) * 20 + np.cos(x / 90) * 10, np.cos(y / 80) * 15 + np.sin(x / 70) * 12])
    return (waves + np.random.default_rng(0).normal(0, 0.02, waves.shape)).astype(np.float32)


def written(store, name, block):
    version = store.find_version(name) or store.create_version(name, {}, 512, 1.0, "2026-01-01")
    agreement = OverlapStats(*(np.zeros((*planes, 16, 16), np.float32) for planes in ((2,), (), ())))
    version.write((0, 0), BlockResult(block, agreement), version.attempt, BlockTiming(1, 0.1))
    return version


def test_smooth_colours_take_half_and_a_version_made_without_is_read_and_continued(tmp_path):
    store = ScanStore.create(tmp_path / "a.zarr", ScanInfo((512, 512), 1, "uint8"), Source("a", 1, "5"))
    block = smooth((512, 512))
    store.create_version("old", {}, 512, 1.0, "2026-01-01")
    group = zarr.open_group(store.path / "versions" / "old")
    del group["chroma"]
    group.create_array(  # as release 0.6 made it
        "chroma",
        shape=(2, 512, 512),
        dtype="float16",
        chunks=(2, 512, 512),
        shards=(2, 512, 512),
        compressors=AGREEMENT_COMPRESSORS,
        config={"write_empty_chunks": True},
    )
    (store.path / "versions" / "old" / "chroma" / "records").mkdir()
    store = ScanStore.open(store.path, writable=True)
    old, new = written(store, "old", block), written(store, "new", block)
    assert old.has_block((0, 0))
    everything = Roi(0, 512, 0, 512)
    np.testing.assert_array_equal(old.read(everything), block.astype(np.float16))
    np.testing.assert_array_equal(new.read(everything), block.astype(np.float16))
    before, after = ((v.path / "chroma" / "c" / "0" / "0" / "0").stat().st_size for v in (old, new))
    assert after < 0.65 * before
