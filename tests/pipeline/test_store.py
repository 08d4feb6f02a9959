"""The store: what counts as there, and what a stopped or replaced writer may leave."""

import errno
import json
import os

import numpy as np
import pytest
import zarr

import pipeline.store.chroma as store_module
from pipeline.errors import StoreError
from pipeline.formats._ome_zarr import Multiscale
from pipeline.store import BlockTiming, ScanStore, Source
from pipeline.support.files import write_json
from pipeline.tiling.anchor import Anchor
from pipeline.tiling.infer import BlockResult
from pipeline.tiling.overlap_stats import OverlapStats
from pipeline.types import Roi, ScanInfo
from tests.pipeline.plain import coloured

SOURCE = Source("a.tif", 3, "5" * 64)


@pytest.fixture
def store(tmp_path):
    made = ScanStore.create(tmp_path / "a.zarr", ScanInfo((2500, 700), 1, "uint8"), SOURCE)
    return ScanStore.open(made.path, writable=True)


def version_of(store, name="v", levels=1):
    return store.create_version(name, {}, 512, 1.0, "2026-01-01", levels)


def write_block(version, index_yx, level=0, seed=0, took=(1, 0.1), attempt=None):
    """A block of the store above in noise; what was written."""
    shape = (min(512, 2500 - 512 * index_yx[0]), min(512, 700 - 512 * index_yx[1]))
    random = np.random.default_rng(seed)
    mean, spread, weight = (
        random.uniform(1, 9, (n, *(-(-extent // 32) for extent in shape))).astype(np.float32) for n in (2, 1, 1)
    )
    chroma = random.integers(-50, 50, (2, *shape)).astype(np.float32)
    made = BlockResult(chroma, OverlapStats(mean, spread[0], weight[0]))
    version.write(index_yx, made, attempt or version.attempt, BlockTiming(*took, level))
    return made


def assert_same_agreement(one, other):
    for a, b in ((one.mean, other.mean), (one.spread, other.spread), (one.weight, other.weight)):
        np.testing.assert_array_equal(a, b)


def test_a_black_scan_is_there_as_any_other(store):
    """An all-zero chunk must not be left out: resume counts what is on the disk."""
    for rows in (slice(0, 2048), slice(2048, 2500)):
        assert not store.has_whole_scan()
        store.write_scan(Roi(rows.start, rows.stop, 0, 700), np.zeros((rows.stop - rows.start, 700), np.uint8))
    assert ScanStore.open(store.path).has_whole_scan()


def test_a_file_system_without_hard_links_holds_a_store(tmp_path, monkeypatch):
    """As exFAT, SMB and FUSE: store, version and picture are made, written to and read again."""

    def refused(*_, **__):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    store = ScanStore.create(tmp_path / "a.zarr", ScanInfo((2500, 700), 1, "uint8"), SOURCE)
    samples = np.random.default_rng(0).integers(0, 255, (2048, 700), dtype=np.uint8)
    store.write_scan(Roi(0, 2048, 0, 700), samples)
    version = version_of(store)
    write_block(version, (0, 0))
    opened = ScanStore.open(tmp_path / "a.zarr", writable=True)
    np.testing.assert_array_equal(opened.read_scan(Roi(0, 2048, 0, 700)), samples)
    assert opened.version_names() == ["v"]
    picture = Multiscale(tmp_path / "picture", [(40, 50)], 3, np.dtype("uint8"), attributes={})
    picture.write(0, 0, 0, np.full((40, 50, 3), 7, np.uint8))
    assert not list(tmp_path.rglob("*.partial"))


def test_a_block_without_colour_is_finished_as_any_other(store):
    version_of(store)
    version = ScanStore.open(store.path, writable=True).version("v")
    version.write((0, 0), coloured(np.zeros((2, 512, 512), np.float32)), version.attempt, BlockTiming(1, 0.1))
    assert version.finished_blocks() == {(0, 0)}
    assert version.work_done() == (1, 0.1)


def test_a_writer_of_an_earlier_attempt_is_refused_and_its_records_do_not_count(store):
    before = version_of(store)
    record = before.path / "chroma" / "records" / "0.0.json"
    before.write((0, 0), coloured(np.ones((2, 512, 512), np.float32)), before.attempt, BlockTiming(1, 0.1))
    kept = record.read_text()
    after = version_of(store)
    with pytest.raises(StoreError, match="another run has taken over"):
        before.write((0, 0), coloured(np.ones((2, 512, 512), np.float32)), before.attempt, BlockTiming(1, 0.1))
    after.write((0, 0), coloured(np.ones((2, 512, 512), np.float32)), after.attempt, BlockTiming(1, 0.1))
    assert after.has_block((0, 0))
    record.write_text(kept)
    assert not after.has_block((0, 0))


@pytest.mark.parametrize("harm", ["shard", "size", "record", "gone"])
def test_a_block_that_is_not_what_its_record_says_is_missing(store, harm):
    version = version_of(store)
    version.write((1, 0), coloured(np.full((2, 512, 512), 3, np.float32)), version.attempt, BlockTiming(1, 0.1))
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
    version.write((0, 0), coloured(np.ones((2, 512, 512), np.float32)), version.attempt, BlockTiming(1, 0.1))
    left = [version.path / "chroma" / "c" / "0" / "0" / "0.77f2.partial", version.path / "chroma/records/0.0.json.part"]
    for path in left:
        path.write_bytes(b"half")
    version.finish()
    assert not any(path.exists() for path in left)
    assert version.has_block((0, 0))


def again(store, name="v"):
    """The version as another process finds it."""
    return ScanStore.open(store.path).version(name)


def test_the_palette_comes_back(store):
    version = version_of(store)
    assert not again(store).has_anchor
    with pytest.raises(StoreError):
        version.anchor((2500, 700))
    cells = np.random.default_rng(0).normal(size=(2, 157, 44)).astype(np.float32)
    version.write_anchor(Anchor(cells, 16), version.attempt)
    assert again(store).has_anchor
    kept = again(store).anchor((2500, 700))
    assert kept.cell_px == 16
    assert kept.cells.dtype == np.float32
    np.testing.assert_array_equal(kept.cells, cells)
    assert again(store).anchor((40_000, 700)).cell_px == 128


def test_a_palette_that_is_damaged_is_told_as_such(store):
    version = version_of(store)
    version.write_anchor(Anchor(np.ones((2, 5, 5), np.float32), 16), version.attempt)
    (version.path / "anchor.npy").write_bytes(b"half")
    with pytest.raises(StoreError, match="damaged"):
        version.anchor((2500, 700))


def test_the_choice_of_every_refinement_comes_back(store):
    version = version_of(store, levels=3)
    assert version.levels_chosen == 0
    choices = [np.random.default_rng(level).random((7, 3 * level)) < 0.5 for level in (1, 2)]
    for level, choice in enumerate(choices, 1):
        version.write_chosen(level, choice, 1 + 0.25 / level)
        assert again(store).levels_chosen == level
    for level, choice in enumerate(choices, 1):
        kept = again(store).chosen(level)
        assert kept.dtype == bool
        np.testing.assert_array_equal(kept, choice)
        assert again(store).score_before(level) == 1 + 0.25 / level
    with pytest.raises(StoreError):
        version.chosen(3)
    with pytest.raises(StoreError):
        version.score_before(3)


def test_a_version_that_is_made_anew_has_neither_palette_nor_choices_nor_blocks(store):
    version = version_of(store, levels=2)
    version.write_anchor(Anchor(np.ones((2, 5, 5), np.float32), 16), version.attempt)
    version.write_chosen(1, np.ones((3, 3), bool), 1.2)
    write_block(version, (0, 0))
    version = version_of(store, levels=2)
    assert not version.has_anchor
    assert version.levels_chosen == 0
    assert version.finished_blocks() == set()
    assert version.agreement(Roi(0, 2500, 0, 700)).weight.max() == 0


def test_agreement_comes_back_by_level_and_the_last_of_each_block_by_itself(store):
    version = version_of(store, levels=3)
    corner, beside = Roi(0, 512, 0, 512), Roi(0, 512, 512, 700)
    first = write_block(version, (0, 0), seed=1).agreement
    other = write_block(version, (0, 1), seed=2).agreement
    last = write_block(version, (0, 0), level=2, seed=3).agreement
    found = again(store)
    for level in (1, 2):
        assert_same_agreement(found.agreement(corner), first)
        version.write_chosen(level, np.ones((9, 3), bool), 1.2)
    assert_same_agreement(found.agreement(corner, below=2), first)
    assert_same_agreement(found.agreement(corner, below=3), last)
    assert_same_agreement(found.agreement(corner), last)
    assert_same_agreement(found.agreement(beside), other)
    both = found.agreement(Roi(0, 512, 0, 700))
    np.testing.assert_array_equal(both.spread, np.hstack([last.spread, other.spread]))
    np.testing.assert_array_equal(found.agreement(Roi(64, 160, 32, 700)).mean, both.mean[:, 2:5, 1:])
    spread, weight = found.spread(Roi(0, 512, 0, 700))
    np.testing.assert_array_equal(spread, both.spread)
    np.testing.assert_array_equal(weight, both.weight)


def test_a_writer_that_comes_late_changes_nothing(store):
    version = version_of(store, levels=3)
    version.write_chosen(1, np.ones((9, 3), bool), 1.2)
    write_block(version, (0, 0))
    refined = write_block(version, (0, 0), level=1, seed=5)
    for level in (0, 1):
        write_block(version, (0, 0), level=level, seed=6)
    assert version.level_of((0, 0)) == 1
    np.testing.assert_array_equal(version.read(Roi(0, 512, 0, 512)), refined.chroma)
    assert_same_agreement(again(store).agreement(Roi(0, 512, 0, 512)), refined.agreement)


@pytest.mark.parametrize("array", ["chroma", "agreement"])
def test_a_record_stands_for_what_its_writer_wrote_and_not_for_what_lies_there(store, array, monkeypatch):
    """Another worker, which was taken for lost, writes its block in the moment before the record."""
    version = version_of(store)
    monkeypatch.setattr(store_module, "write_json", lambda path, value: None)
    theirs = write_block(version, (0, 0), seed=1)
    (path,) = (path for path in (version.path / array / "c").rglob("*") if path.is_file())
    shard = path.read_bytes()
    monkeypatch.undo()
    monkeypatch.setattr(store_module, "write_json", lambda p, value: (path.write_bytes(shard), write_json(p, value)))
    write_block(version, (0, 0), seed=2)
    monkeypatch.undo()
    assert not version.has_block((0, 0))
    write_block(version, (0, 0), seed=1)
    assert version.has_block((0, 0))
    np.testing.assert_array_equal(version.read(Roi(0, 512, 0, 512)), theirs.chroma)


@pytest.mark.parametrize("array", ["chroma", "agreement"])
def test_one_byte_that_is_other_leaves_the_block_missing(store, array):
    version = version_of(store)
    write_block(version, (0, 0))
    (path,) = (path for path in (version.path / array / "c").rglob("*") if path.is_file())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert not version.has_block((0, 0))


def test_agreement_of_the_blocks_at_the_far_edges_has_their_last_squares(store):
    version = version_of(store)
    made = {index: write_block(version, index, seed=index[0]).agreement for index in np.ndindex(5, 2)}
    whole = again(store).agreement(Roi(0, 2500, 0, 700))
    assert whole.spread.shape == (79, 22)
    expected = np.vstack([np.hstack([made[y, x].spread for x in range(2)]) for y in range(5)])
    np.testing.assert_array_equal(whole.spread, expected)
    assert_same_agreement(again(store).agreement(Roi(2048, 2500, 512, 700)), made[4, 1])


def test_a_block_has_the_levels_up_to_the_one_that_was_written_last(store):
    version = version_of(store, levels=3)
    write_block(version, (0, 0))
    write_block(version, (1, 1))
    assert [version.has_block((0, 0), level) for level in range(3)] == [True, False, False]
    refined = write_block(version, (0, 0), level=1, seed=5)
    assert [version.has_block((0, 0), level) for level in range(3)] == [True, True, False]
    assert [version.finished_blocks(level) for level in range(3)] == [{(0, 0), (1, 1)}, {(0, 0)}, set()]
    assert version.has_block((0, 0))
    np.testing.assert_array_equal(version.read(Roi(0, 512, 0, 512)), refined.chroma)


def test_a_refinement_that_stopped_before_its_record_leaves_the_block_missing(store):
    version = version_of(store, levels=2)
    write_block(version, (0, 0))
    record = version.path / "chroma" / "records" / "0.0.json"
    kept = record.read_text()
    write_block(version, (0, 0), level=1, seed=5)
    record.write_text(kept)
    assert not version.has_block((0, 0), 0)
    assert version.finished_blocks(1) == set()


def test_tiles_and_seconds_of_all_levels_add_up_and_those_of_a_repetition_do_not(store):
    version = version_of(store, levels=3)
    write_block(version, (0, 0), took=(90, 5.0))
    write_block(version, (0, 0), took=(100, 4.0))
    assert version.work_done() == (90, 5.0)
    write_block(version, (0, 0), level=1, took=(20, 1.5))
    write_block(version, (0, 0), level=2, took=(3, 0.25))
    write_block(version, (0, 1), took=(7, 1.0))
    tiles, seconds = again(store).work_done()
    assert tiles == 120
    assert seconds == pytest.approx(7.75)


def test_a_writer_of_an_earlier_attempt_changes_no_agreement(store):
    before = version_of(store, levels=2)
    after = version_of(store, levels=2)
    made = write_block(after, (0, 0), seed=1)
    with pytest.raises(StoreError, match="another run has taken over"):
        write_block(before, (0, 0), seed=2)
    assert_same_agreement(again(store).agreement(Roi(0, 512, 0, 512)), made.agreement)


def test_a_store_of_another_layout_is_refused_and_says_what_to_do(store):
    zarr.open_group(str(store.path), mode="r+").attrs["format"] = 2
    with pytest.raises(StoreError, match="--force"):
        ScanStore.open(store.path)
