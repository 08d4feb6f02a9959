"""A scan file into its Zarr group, window by window.

A window is one shard of the group, and a few are worked on at once: one decodes while another is compressed. Formats
that can only be decoded as whole rows (PNG, JPEG, strips) would decode a row again for every window across, so they go
through a nameless file that holds one row of windows, while the rows for the next one are decoded into another.

The file is hashed once, beside the reading. That vouches for what was read only if the file stayed as it was all the
while: size, modification time, change time and inode must be the same before and after. Clocks of file systems tick
as slowly as every two seconds, so a file that was written just before is hashed again afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ScanError, ScanNotFoundError, ScanUnreadableError, StoreError
from pipeline.files import file_sha256, remove, writing
from pipeline.grid import Roi
from pipeline.ordered import OrderedPool
from pipeline.readers import open_scan
from pipeline.spill import Spill
from pipeline.store import SCAN_SHARD_PX, ScanStore, Source
from pipeline.types import ScanInfo, ScanReader

_ROWS_BYTES = 4 * 2**20  # decoded at once of formats that come in whole rows
_HASH_BYTES = 2**20
_CLOCK_TICK_NS = 2_000_000_000  # of the slowest file system, FAT


def source_of(path: Path) -> Source:
    """Name, size, hash and place of a scan file; reads it once. Raises ScanNotFoundError, ScanUnreadableError."""
    with _reading(path):
        return Source(path.name, path.stat().st_size, file_sha256(path), str(path.absolute()))


def ingested(store_path: Path, source: Source) -> ScanStore | None:
    """The store at ``store_path`` if it holds all of exactly ``source``'s samples."""
    try:
        store = ScanStore.open(store_path)
    except StoreError:
        return None
    return store if store.source.sha256 == source.sha256 and store.has_whole_scan() else None


def ingest(path: Path, store_path: Path, source: Source, force: bool = False, threads: int = 2) -> ScanStore:
    """Copy the original samples of ``path`` into a Zarr group, unless they are there already and ``force`` is off.

    The group is written beside and renamed when it is whole. ``threads`` windows are worked on at once. Versions of
    the same scan's colours are taken over.

    Raises
    ------
    ScanError : the scan cannot be read, or changed while it was. OutputError : the group cannot be written.
    """
    settle_store(store_path)
    if not force and (store := ingested(store_path, source)) is not None:
        return store
    part, old = _beside(store_path)
    with writing(store_path):
        try:
            with _unchanged(path, source):
                _copy(path, part, source, threads)
        except BaseException:
            remove(part)
            raise
        if _is_same(store_path, source):
            _move_versions(store_path, part)
        if store_path.exists():
            os.replace(store_path, old)
        os.replace(part, store_path)
        remove(old)
    return ScanStore.open(store_path)


def _beside(store_path: Path) -> tuple[Path, Path]:
    """Where a store is made, and where the one lies that it replaces."""
    return store_path.with_name(f"{store_path.name}.part"), store_path.with_name(f"{store_path.name}.old.part")


def settle_store(store_path: Path) -> None:
    """Put right what a stopped :func:`ingest` left; nobody may be ingesting this scan. Raises OutputError."""
    part, old = _beside(store_path)
    with writing(store_path):
        if old.exists() and not store_path.exists():
            # Stopped between the two renamings: the new one is whole.
            os.replace(part if part.exists() else old, store_path)
        if part.exists():
            _move_versions(part, store_path)
            remove(part)
        remove(old)


def _is_same(store_path: Path, source: Source) -> bool:
    """Whether a readable store is of these bytes, whatever of its samples is there."""
    try:
        return ScanStore.open(store_path).source.sha256 == source.sha256
    except StoreError:
        return False


def _move_versions(before: Path, after: Path) -> None:
    """Take the versions over into another store of the same scan, where both are there; each one by a renaming.

    Called the other way round it puts right an exchange of stores that was stopped in between.
    """
    if not (after / "versions").is_dir() or not (before / "versions").is_dir():
        return
    for version in sorted(p for p in (before / "versions").iterdir() if p.is_dir()):
        if not (after / "versions" / version.name).exists():
            os.replace(version, after / "versions" / version.name)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ScanNotFoundError(f"{path}: no such file; check the name, or whether its drive is still there") from error
    except OSError as error:
        raise ScanUnreadableError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


@dataclass(frozen=True)
class _Status:
    """What changes when a file is written, replaced (``file``: device and inode), or has its times set back."""

    bytes: int
    modified_ns: int
    changed_ns: int
    file: tuple[int, int]

    @classmethod
    def of(cls, path: Path) -> _Status:
        with path.open("rb") as stream:  # opened: a network drive then asks its server
            status = os.fstat(stream.fileno())
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, (status.st_dev, status.st_ino))


@contextlib.contextmanager
def _unchanged(path: Path, source: Source) -> Iterator[None]:
    """Hash ``path`` beside the body. Raises ScanUnreadableError if the body may have read anything but ``source``."""
    stop = threading.Event()
    with _reading(path):
        before, at_rest_since_ns = _Status.of(path), time.time_ns() - _CLOCK_TICK_NS
    with ThreadPoolExecutor(1) as beside:
        hashed: Future[str] = beside.submit(_sha256, path, stop)
        try:
            yield
        except BaseException as error:
            stop.set()
            with _reading(path):
                # Half of one file and half of another look like damage.
                if isinstance(error, ScanError) and _Status.of(path) != before:
                    raise _changed(path) from error
            raise
    with _reading(path):
        same = hashed.result() == source.sha256 and before.bytes == source.bytes
        if same and (_Status.of(path) != before or before.changed_ns >= at_rest_since_ns):
            same = file_sha256(path) == source.sha256 and _Status.of(path).modified_ns == before.modified_ns
    if not same:
        raise _changed(path)


def _changed(path: Path) -> ScanUnreadableError:
    return ScanUnreadableError(f"{path}: changed while it was read; run again when it is at rest")


def _sha256(path: Path, stop: threading.Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while not stop.is_set() and (piece := stream.read(_HASH_BYTES)):
            digest.update(piece)
    return digest.hexdigest()


def _copy(path: Path, part: Path, source: Source, threads: int) -> None:
    with open_scan(path) as reader:
        store = ScanStore.create(part, reader.info, source)
        if _segment_yx(reader)[1] < reader.info.shape_yx[1]:
            _copy_windows(reader, store, threads)
        else:
            _copy_rows(reader, store, threads)


def _segment_yx(reader: ScanReader) -> tuple[int, int]:
    """Rows and columns that the reader decodes at once, where it says so; else one whole row."""
    found: tuple[int, int] = getattr(reader, "segment_yx", (1, reader.info.shape_yx[1]))
    return found


def _windows(info: ScanInfo, top: int, bottom: int) -> Iterator[Roi]:
    for y in range(top, bottom, SCAN_SHARD_PX):
        for x in range(0, info.shape_yx[1], SCAN_SHARD_PX):
            yield Roi(y, y + SCAN_SHARD_PX, x, x + SCAN_SHARD_PX).clipped(info.shape_yx)


def _copy_windows(reader: ScanReader, store: ScanStore, threads: int) -> None:
    def copy(roi: Roi) -> None:
        store.write_scan(roi, reader.read(roi.rows, roi.columns))

    with OrderedPool(threads) as pool:
        for _ in pool.map(copy, _windows(reader.info, 0, reader.info.shape_yx[0])):
            pass


def _copy_rows(reader: ScanReader, store: ScanStore, threads: int) -> None:
    """Copy by rows of windows: one is compressed from its spill while the next is decoded into the other."""
    info = reader.info
    shape = (SCAN_SHARD_PX, info.shape_yx[1], *(() if info.channels == 1 else (3,)))
    tops = range(0, info.shape_yx[0], SCAN_SHARD_PX)
    with contextlib.ExitStack() as stack:
        spills = [stack.enter_context(Spill(store.path, shape, SCAN_SHARD_PX, np.dtype(info.dtype))) for _ in range(2)]
        # Entered last, left first: nobody uses a spill when it is closed.
        pool = stack.enter_context(OrderedPool(threads))
        decoder = stack.enter_context(ThreadPoolExecutor(1))
        decoded = decoder.submit(_decode_rows, reader, tops[0], spills[0])
        for index, top in enumerate(tops):
            spill = spills[index % 2]
            decoded.result()
            if index + 1 < len(tops):
                decoded = decoder.submit(_decode_rows, reader, tops[index + 1], spills[(index + 1) % 2])

            def copy(roi: Roi, top: int = top, spill: Spill = spill) -> None:
                store.write_scan(roi, spill.read(slice(roi.y0 - top, roi.y1 - top), roi.columns))

            for _ in pool.map(copy, _windows(info, top, min(top + SCAN_SHARD_PX, info.shape_yx[0]))):
                pass


def _decode_rows(reader: ScanReader, top: int, spill: Spill) -> None:
    height, width = reader.info.shape_yx
    row_bytes = width * reader.info.channels * np.dtype(reader.info.dtype).itemsize
    # A strip that no cache can hold is decoded anew for every run of rows, so runs are as tall as strips.
    step = max(1, _ROWS_BYTES // row_bytes, min(_segment_yx(reader)[0], SCAN_SHARD_PX))
    bottom = min(top + SCAN_SHARD_PX, height)
    for y in range(top, bottom, step):
        rows = slice(y, min(y + step, bottom))
        spill.write(y - top, 0, reader.read(rows, slice(0, width)))
