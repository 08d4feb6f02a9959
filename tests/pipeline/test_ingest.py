"""Ingest: the samples come over exactly, by windows of bounded size, and a scan that changes meanwhile is refused."""

from __future__ import annotations

import os
import threading
import types
from functools import partial

import numpy as np
import pytest
import tifffile
from PIL import Image

from pipeline import ingest as module
from pipeline.errors import OutputError, ScanNotFoundError, ScanUnreadableError
from pipeline.ingest import ingest, ingested, source_of
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.readers import open_scan
from pipeline.store import BlockTiming, ScanStore
from pipeline.support import fingerprint
from pipeline.types import Roi, ScanInfo
from tests.pipeline.plain import coloured


def noise(shape, dtype="uint8"):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def write_tiled(path, samples):
    tifffile.imwrite(path, samples, tile=(256, 256), compression="adobe_deflate", compressionargs={"level": 1})


def write_strips(path, samples):
    tifffile.imwrite(path, samples, rowsperstrip=100, compression="adobe_deflate", compressionargs={"level": 1})


def write_png(path, samples):
    Image.fromarray(samples).save(path, format="PNG", compress_level=1)


def whole(store):
    height, width = store.info.shape_yx
    return store.read_scan(Roi(0, height, 0, width))


class WatchedReader:
    """A reader that keeps what was asked of it; its segments are rows, or what it is told."""

    embedded, missing_regions = EmbeddedMetadata(), ()

    def __init__(self, reader, segment_yx=None):
        self._reader = reader
        self.info = reader.info
        self.asked = []
        self.segment_yx = segment_yx or (1, reader.info.shape_yx[1])

    def read(self, rows, columns):
        self.asked.append((rows, columns))
        return self._reader.read(rows, columns)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._reader.close()


@pytest.fixture
def watched(monkeypatch):
    """Call it with the size of the segments; it returns a list that will hold the reader."""

    def watch(segment_yx=None):
        readers = []

        def open_watched(path, reading):
            readers.append(WatchedReader(open_scan(path, reading), segment_yx))
            return readers[-1]

        monkeypatch.setattr(module, "open_scan", open_watched)
        return readers

    return watch


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("write", [write_tiled, write_strips, write_png])
@pytest.mark.parametrize("shape", [(1, 1), (2100, 300), (700, 4400), (2500, 2300, 3)])
def test_samples_come_over_exactly(tmp_path, shape, write, threads):
    samples = noise(shape)
    write(tmp_path / "a", samples)
    store = ingest(tmp_path / "a", tmp_path / "a.zarr", source_of(tmp_path / "a"), threads=threads)
    np.testing.assert_array_equal(whole(store), samples)
    assert store.has_whole_scan()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "a.zarr"]


@pytest.mark.parametrize("segment_yx", [None, (256, 256)])
def test_threads_and_ways_do_not_matter(tmp_path, watched, segment_yx):
    write_tiled(tmp_path / "a", noise((2100, 4200), "uint16"))
    watched(segment_yx)
    stores = []
    for threads in (1, 2, 5):
        folder = tmp_path / f"{threads}.zarr"
        ingest(tmp_path / "a", folder, source_of(tmp_path / "a"), threads=threads)
        stores.append({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert stores[0] == stores[1] == stores[2]
    assert len([name for name in stores[0] if name.startswith("scan/c/")]) == 2 * 3


def test_tiles_are_read_by_windows(tmp_path, watched):
    write_tiled(tmp_path / "a", noise((2100, 4200)))
    readers = watched((256, 256))
    ingest(tmp_path / "a", tmp_path / "a.zarr", source_of(tmp_path / "a"))
    assert len(readers[0].asked) == 2 * 3
    assert max((r.stop - r.start) * (c.stop - c.start) for r, c in readers[0].asked) == 2048**2


@pytest.mark.parametrize("segment_yx", [None, (50, 70_000)])
def test_whole_rows_are_read_once_each_and_few_at_a_time(tmp_path, watched, segment_yx):
    write_strips(tmp_path / "a", np.zeros((2100, 70_000), np.uint8))
    readers = watched(segment_yx)
    ingest(tmp_path / "a", tmp_path / "a.zarr", source_of(tmp_path / "a"))
    rows = [rows for rows, columns in readers[0].asked if columns == slice(0, 70_000)]
    assert len(rows) == len(readers[0].asked)
    assert [y for each in rows for y in range(each.start, each.stop)] == list(range(2100))
    assert max(each.stop - each.start for each in rows) * 70_000 <= 4 * 2**20


class Endless:
    """A scan without a file; keeps the sizes of the windows asked for."""

    def __init__(self, shape_yx):
        self.info, self.embedded, self.missing_regions = ScanInfo(shape_yx, 1, "uint8", {}), EmbeddedMetadata(), ()
        self.segment_yx = (1, shape_yx[1])
        self.areas = []

    def read(self, rows, columns):
        self.areas.append((rows.stop - rows.start) * (columns.stop - columns.start))
        return np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)

    def __enter__(self):
        return self

    def __exit__(self, *_): ...


def test_a_tall_strip_is_not_decoded_for_every_few_rows(tmp_path, watched):
    write_strips(tmp_path / "a", np.zeros((2100, 70_000), np.uint8))
    readers = watched((1000, 70_000))
    ingest(tmp_path / "a", tmp_path / "a.zarr", source_of(tmp_path / "a"))
    assert [rows for rows, _ in readers[0].asked] == [
        slice(0, 1000),
        slice(1000, 2000),
        slice(2000, 2048),
        slice(2048, 2100),
    ]


@pytest.mark.parametrize("shape_yx", [(300, 200_000), (100_000, 300), (9000, 9000)])
def test_windows_are_bounded_whatever_the_shape(tmp_path, monkeypatch, shape_yx):
    (tmp_path / "a").write_bytes(b"a")
    reader = Endless(shape_yx)
    monkeypatch.setattr(module, "open_scan", lambda path, reading: reader)
    ingest(tmp_path / "a", tmp_path / "a.zarr", source_of(tmp_path / "a"))
    assert max(reader.areas) <= 2048**2
    assert sum(reader.areas) == shape_yx[0] * shape_yx[1]


def test_what_is_there_is_taken_unless_forced(tmp_path, watched):
    write_tiled(tmp_path / "a", noise((300, 300)))
    readers, source = watched(), source_of(tmp_path / "a")
    assert ingested(tmp_path / "a.zarr", source) is None
    for force in (False, False, True):
        ingest(tmp_path / "a", tmp_path / "a.zarr", source, force)
    assert len(readers) == 2
    assert ingested(tmp_path / "a.zarr", source) is not None


@pytest.fixture
def settled(monkeypatch):
    """As if every file had been at rest for long."""
    monkeypatch.setattr(fingerprint, "_CLOCK_TICK_NS", -(10**18))


@pytest.fixture
def hashings(monkeypatch):
    """Each reading of a file for its hash."""
    made = []

    def counted(path, *more, plain):
        made.append(path)
        return plain(path, *more)

    for where, name in ((fingerprint, "tree_sha256"), (module, "tree_sha256"), (module, "_sha256")):
        monkeypatch.setattr(where, name, partial(counted, plain=getattr(where, name)))
    return made


def change_while_read(monkeypatch, change):
    """Call ``change`` in the middle of the copying."""
    write_scan, once = ScanStore.write_scan, threading.Lock()

    def write_and_change(self, roi, samples):
        if once.acquire(blocking=False):
            change()
        write_scan(self, roi, samples)

    monkeypatch.setattr(ScanStore, "write_scan", write_and_change)


def overwrite(path):
    with path.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last[0] ^ 1]))


def overwrite_and_set_the_times_back(path):
    status = path.stat()
    overwrite(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_the_same(path):
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def grow(path):
    with path.open("ab") as stream:
        stream.write(b"\0")


@pytest.mark.parametrize("is_quiescent", [True, False])
@pytest.mark.parametrize("change", [overwrite, overwrite_and_set_the_times_back, replace_by_the_same, grow])
def test_a_scan_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, request, change, is_quiescent):
    path = tmp_path / "a"
    write_tiled(path, noise((2100, 2100)))
    if is_quiescent:
        request.getfixturevalue("settled")
    source = source_of(path)
    change_while_read(monkeypatch, lambda: change(path))
    with pytest.raises(ScanUnreadableError, match=r"a: changed while it was read; run again when it is at rest"):
        ingest(path, tmp_path / "a.zarr", source)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_scan_that_changed_since_it_was_hashed_is_refused(tmp_path):
    write_tiled(tmp_path / "a", noise((300, 300)))
    source = source_of(tmp_path / "a")
    write_tiled(tmp_path / "a", noise((300, 300)) ^ 1)
    with pytest.raises(ScanUnreadableError, match="changed while it was read"):
        ingest(tmp_path / "a", tmp_path / "a.zarr", source)


def test_a_scan_at_rest_is_hashed_once_for_all_its_pages(tmp_path, settled, hashings):
    pages = noise((3, 300, 300))
    tifffile.imwrite(tmp_path / "a", pages, photometric="minisblack")
    for number, page in enumerate(pages, 1):
        store = ingest(tmp_path / "a", tmp_path / f"a.{number}.zarr", source_of(tmp_path / "a", number))
        assert (store.read_scan(Roi(0, 300, 0, 300)) == page).all()
    assert len(hashings) == 1


def test_a_scan_that_was_just_written_is_hashed_beside_the_reading_and_after(tmp_path, hashings):
    write_tiled(tmp_path / "a", noise((300, 300)))
    source = source_of(tmp_path / "a")
    hashings.clear()
    ingest(tmp_path / "a", tmp_path / "a.zarr", source)
    assert len(hashings) == 2


def test_other_permissions_are_no_change(tmp_path, monkeypatch):
    write_tiled(tmp_path / "a", noise((300, 300)))
    source = source_of(tmp_path / "a")
    change_while_read(monkeypatch, lambda: (tmp_path / "a").chmod(0o600))
    ingest(tmp_path / "a", tmp_path / "a.zarr", source)


def test_a_scan_that_vanishes_is_named(tmp_path, monkeypatch):
    with pytest.raises(ScanNotFoundError, match="no such file"):
        source_of(tmp_path / "a")
    write_tiled(tmp_path / "a", noise((300, 300)))
    source = source_of(tmp_path / "a")
    change_while_read(monkeypatch, (tmp_path / "a").unlink)
    with pytest.raises(ScanNotFoundError, match="no such file"):
        ingest(tmp_path / "a", tmp_path / "a.zarr", source)


@pytest.mark.parametrize("segment_yx", [None, (256, 256)])
@pytest.mark.parametrize("failure", [ScanUnreadableError("damaged"), KeyboardInterrupt(), MemoryError()])
def test_failure_leaves_the_old_store_alone(tmp_path, monkeypatch, failure, segment_yx):
    write_tiled(tmp_path / "a", noise((2100, 2100)))
    source = source_of(tmp_path / "a")
    ingest(tmp_path / "a", tmp_path / "a.zarr", source)

    class Broken(WatchedReader):
        def read(self, rows, columns):
            if rows.start:
                raise failure
            return super().read(rows, columns)

    monkeypatch.setattr(module, "open_scan", lambda path, reading: Broken(open_scan(path, reading), segment_yx))
    with pytest.raises(type(failure)) as caught:
        ingest(tmp_path / "a", tmp_path / "a.zarr", source, force=True)
    assert caught.value is failure
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "a.zarr"]
    assert ingested(tmp_path / "a.zarr", source) is not None


def test_a_full_disk_is_told_as_one(tmp_path, monkeypatch):
    write_strips(tmp_path / "a", noise((300, 2100)))

    def full(*_):
        raise OSError(28, "no space")

    monkeypatch.setattr("pipeline.support.scratch.ScratchRaster.write", full)
    with pytest.raises(OutputError, match="disk full"):
        ingest(tmp_path / "a", tmp_path / "a.zarr", source_of(tmp_path / "a"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def make_version(store_path, name="v"):
    store = ScanStore.open(store_path, writable=True)
    version = store.create_version(name, {}, 512, 1.0, "2026-01-01")
    version.write((0, 0), coloured(np.full((2, 300, 400), 7)), version.attempt, BlockTiming(1, 0.5))
    return version


def versions_are_whole(store_path):
    version = ScanStore.open(store_path).version("v")
    return version.finished_blocks() == {(0, 0)} and (version.read(Roi(0, 300, 0, 400)) == 7).all()


@pytest.fixture
def with_version(tmp_path):
    path, store_path = tmp_path / "a.tif", tmp_path / "a.zarr"
    write_tiled(path, noise((300, 400)))
    ingest(path, store_path, source_of(path))
    make_version(store_path)
    return path, store_path


def test_versions_stay_when_the_same_scan_is_read_again(with_version):
    path, store_path = with_version
    ingest(path, store_path, source_of(path), force=True)
    assert versions_are_whole(store_path)
    write_tiled(path, noise((300, 400)) // 2)
    ingest(path, store_path, source_of(path))
    assert ScanStore.open(store_path).version_names() == []


@pytest.mark.parametrize("stopped_at", range(3))
def test_versions_survive_a_stop_at_any_step_of_the_exchange(with_version, monkeypatch, stopped_at):
    path, store_path = with_version
    count = iter(range(9))

    def stop(source, target):
        if next(count) == stopped_at:
            raise KeyboardInterrupt
        os.replace(source, target)

    # Only of this module: zarr renames its files as well.
    monkeypatch.setattr(module, "os", types.SimpleNamespace(replace=stop, fstat=os.fstat))
    with pytest.raises(KeyboardInterrupt):
        ingest(path, store_path, source_of(path), force=True)
    monkeypatch.undo()
    ingest(path, store_path, source_of(path), force=True)
    assert versions_are_whole(store_path)
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.tif", "a.zarr"]
