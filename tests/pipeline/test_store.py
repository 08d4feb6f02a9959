"""The store: what counts as there, and what a stopped or replaced writer may leave."""

import json

import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.grid import Roi
from pipeline.store import BlockTook, ScanStore, Source
from pipeline.types import ScanInfo
from tests.pipeline.plain import coloured

SOURCE = Source("a.tif", 3, "5" * 64)


@pytest.fixture
def store(tmp_path):
    made = ScanStore.create(tmp_path / "a.zarr", ScanInfo((2500, 700), 1, "uint8"), SOURCE)
    return ScanStore.open(made.path, writable=True)


def version_of(store, name="v"):
    return store.create_version(name, {}, 512, 1.0, "2026-01-01")


def test_a_black_scan_is_there_as_any_other(store):
    """An all-zero chunk must not be left out: resume counts what is on the disk."""
    for rows in (slice(0, 2048), slice(2048, 2500)):
        assert not store.has_whole_scan()
        store.write_scan(Roi(rows.start, rows.stop, 0, 700), np.zeros((rows.stop - rows.start, 700), np.uint8))
    assert ScanStore.open(store.path).has_whole_scan()


def test_a_block_without_colour_is_finished_as_any_other(store):
    version_of(store)
    version = ScanStore.open(store.path, writable=True).version("v")
    version.write((0, 0), coloured(np.zeros((2, 512, 512), np.float32)), version.attempt, BlockTook(1, 0.1))
    assert version.finished_blocks() == {(0, 0)}
    assert version.work_done() == (1, 0.1)


def test_a_writer_of_an_earlier_attempt_is_refused_and_its_records_do_not_count(store):
    before = version_of(store)
    record = before.path / "chroma" / "records" / "0.0.json"
    before.write((0, 0), coloured(np.ones((2, 512, 512), np.float32)), before.attempt, BlockTook(1, 0.1))
    kept = record.read_text()
    after = version_of(store)
    with pytest.raises(StoreError, match="another run has taken over"):
        before.write((0, 0), coloured(np.ones((2, 512, 512), np.float32)), before.attempt, BlockTook(1, 0.1))
    after.write((0, 0), coloured(np.ones((2, 512, 512), np.float32)), after.attempt, BlockTook(1, 0.1))
    assert after.has_block((0, 0))
    record.write_text(kept)
    assert not after.has_block((0, 0))


@pytest.mark.parametrize("harm", ["shard", "size", "record", "gone"])
def test_a_block_that_is_not_what_its_record_says_is_missing(store, harm):
    version = version_of(store)
    version.write((1, 0), coloured(np.full((2, 512, 512), 3, np.float32)), version.attempt, BlockTook(1, 0.1))
    shard = version.path / "chroma" / "c" / "0" / "1" / "0"
    record = version.path / "chroma" / "records" / "1.0.json"
    whole = shard.read_bytes()
    if harm == "shard":
        shard.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    elif harm == "size":
        shard.write_bytes(whole[:-1])
    elif harm == "record":
        record.write_text(json.dumps({**json.loads(record.read_text()), "version": "w"}))
    else:
        shard.unlink()
    assert version.finished_blocks() == set()


def test_versions_are_listed_by_age_and_removed_alone(store):
    for name, created in (("b", "2026-01-02"), ("a", "2026-01-03"), ("c", "2026-01-01")):
        store.create_version(name, {"k": name}, 512, 1.0, created)
    assert store.version_names() == ["c", "b", "a"]
    store.remove_version("b")
    assert store.version_names() == ["c", "a"]
    assert store.version("a").settings == {"k": "a"}
    with pytest.raises(StoreError, match=r"no version 'b' \(there are: c, a\)"):
        store.version("b")


def test_a_finished_version_has_nothing_half_written_beside_its_blocks(store):
    version = version_of(store)
    version.write((0, 0), coloured(np.ones((2, 512, 512), np.float32)), version.attempt, BlockTook(1, 0.1))
    left = [version.path / "chroma" / "c" / "0" / "0" / "0.77f2.partial", version.path / "chroma/records/0.0.json.part"]
    for path in left:
        path.write_bytes(b"half")
    version.finish()
    assert not any(path.exists() for path in left)
    assert version.has_block((0, 0))
