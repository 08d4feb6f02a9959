"""Copy a scan file into its Zarr group, window by window.

A window is one shard of the group, and a few are processed at once: one is decoded while another is compressed. Formats
that can only be decoded as whole rows (PNG, JPEG, strips) would decode a row again for every window across it. So they
go through an unnamed file that holds one row of windows, while the rows for the next one are decoded into another.

The file's hash vouches for the samples if the file did not change during reading
(:mod:`pipeline.support.fingerprint`). A file whose hash this process knows is not hashed again. Any other is hashed
during reading, and once more afterwards if it was written just before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.errors import ScanError, ScanNotFoundError, ScanUnreadableError, StoreError, UsageError
from pipeline.readers import open_scan
from pipeline.store import SCAN_SHARD_PX, ScanStore, Source, is_store
from pipeline.support.files import open_file, remove, tree_sha256, writing
from pipeline.support.fingerprint import KnownFile, StatFingerprint, hash_in, hashed
from pipeline.support.ordered_map import OrderedThreadMap
from pipeline.support.scratch import ScratchRaster
from pipeline.types import ReadOptions, Roi, ScanInfo, ScanReader

_ROWS_BYTES = 4 * 2**20  # decoded at once, for formats that decode whole rows
_HASH_BYTES = 2**20


def source_of(path: Path, page: int = 1) -> Source:
    """Name, size, hash and path of a scan, which is read once. Raises ScanNotFoundError, ScanUnreadableError."""
    with reading(path):
        return source_from(path, page, hashed(path)[0])


def source_from(path: Path, page: int, file: KnownFile) -> Source:
    """As :func:`source_of`, for a file that is already hashed."""
    return Source(path.name, file.state.bytes, file.sha256, str(path.absolute()), page)


def ingested(store_path: Path, source: Source, metadata: bool = True) -> ScanStore | None:
    """The store at ``store_path``, if it has all samples of exactly ``source`` and keeps ``metadata`` as requested."""
    try:
        store = ScanStore.open(store_path)
        if store.keeps_metadata != metadata:
            return None
    except StoreError:
        return None
    same = (store.source.sha256, store.source.page) == (source.sha256, source.page)
    return store if same and store.has_whole_scan() else None


def ingest(
    path: Path,
    store_path: Path,
    source: Source,
    force: bool = False,
    threads: int = 2,
    reading: ReadOptions | None = None,
    metadata: bool = True,
) -> ScanStore:
    """Copy the original samples of ``path`` into a Zarr group, unless it already holds them and ``force`` is off.

    The group is written beside and renamed when complete. ``threads`` windows are processed at once. Versions of the
    same scan's colours are taken over.

    Raises
    ------
    ScanError : the scan cannot be read, or changed during reading. OutputError : the group cannot be written.
    """
    _check_replaceable(store_path)
    settle_store(store_path)
    if not force and (store := ingested(store_path, source, metadata)) is not None:
        return store
    part, old = _beside(store_path)
    with writing(store_path):
        try:
            with _unchanged(path, source):
                _copy(path, part, source, threads, reading or ReadOptions(page=source.page), metadata)
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


def _check_replaceable(store_path: Path) -> None:
    """Raises UsageError if ``store_path`` exists and is not this project's, because it would be deleted."""
    if store_path.exists() and not is_store(store_path):
        raise UsageError(
            f"{store_path}: is there and no store of this project's, it would be deleted; "
            "move it away, or give another --output"
        )


def _beside(store_path: Path) -> tuple[Path, Path]:
    """Temporary paths of a new store and of the one that it replaces."""
    return store_path.with_name(f"{store_path.name}.part"), store_path.with_name(f"{store_path.name}.old.part")


def settle_store(store_path: Path) -> None:
    """Recover from a stopped :func:`ingest`; nobody may be ingesting this scan. Raises OutputError."""
    part, old = _beside(store_path)
    with writing(store_path):
        if old.exists() and not store_path.exists():
            # Stopped between the two renamings, so the new store is complete.
            os.replace(part if part.exists() else old, store_path)
        if part.exists():
            _move_versions(part, store_path)
            remove(part)
        remove(old)


def _is_same(store_path: Path, source: Source) -> bool:
    """True if a readable store is of these bytes, even if its samples are incomplete."""
    try:
        return ScanStore.open(store_path).source.sha256 == source.sha256
    except StoreError:
        return False


def _move_versions(before: Path, after: Path) -> None:
    """Move the versions into another store of the same scan, if both exist, each by renaming.

    Called with the stores swapped, it recovers an exchange of stores that was stopped half-way.
    """
    if not (after / "versions").is_dir() or not (before / "versions").is_dir():
        return
    for version in sorted(p for p in (before / "versions").iterdir() if p.is_dir()):
        if not (after / "versions" / version.name).exists():
            os.replace(version, after / "versions" / version.name)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn OSErrors of the body into ScanNotFoundError or ScanUnreadableError about ``path``."""
    try:
        yield
    except FileNotFoundError as error:
        raise ScanNotFoundError(f"{path}: no such file; check the name, or whether its drive is still there") from error
    except OSError as error:
        raise ScanUnreadableError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


@contextlib.contextmanager
def _unchanged(path: Path, source: Source) -> Iterator[None]:
    """Guard the reading in the body. Raises ScanUnreadableError if it may have read anything but ``source``."""
    stop = threading.Event()
    with reading(path):
        began_ns, before = time.time_ns(), StatFingerprint.of(path)
    with ThreadPoolExecutor(1) as beside:
        known = hash_in(path, before)
        sha256: Future[str] | None = beside.submit(_sha256, path, stop) if known is None else None
        try:
            yield
        except BaseException as error:
            stop.set()
            with reading(path):
                # A file that was replaced during reading looks damaged.
                if isinstance(error, ScanError) and StatFingerprint.of(path) != before:
                    raise _changed(path) from error
            raise
    with reading(path):
        same = (known if sha256 is None else sha256.result()) == source.sha256 and before.bytes == source.bytes
        if same and (StatFingerprint.of(path) != before or not before.is_quiescent(began_ns)):
            same = tree_sha256(path) == source.sha256 and StatFingerprint.of(path).modified_ns == before.modified_ns
    if not same:
        raise _changed(path)


def _changed(path: Path) -> ScanUnreadableError:
    return ScanUnreadableError(f"{path}: changed while it was read; run again when it is at rest")


def _sha256(path: Path, stop: threading.Event) -> str:
    if path.is_dir():
        return tree_sha256(path)
    digest = hashlib.sha256()
    with open_file(path) as stream:
        while not stop.is_set() and (piece := stream.read(_HASH_BYTES)):
            digest.update(piece)
    return digest.hexdigest()


def _copy(path: Path, part: Path, source: Source, threads: int, reading: ReadOptions, metadata: bool) -> None:
    with open_scan(path, reading) as reader:
        store = ScanStore.create(part, reader.info, source, reader.embedded, metadata)
        if reader.segment_yx[1] < reader.info.shape_yx[1]:
            _copy_windows(reader, store, threads)
        else:
            _copy_rows(reader, store, threads)
        if reader.missing_regions:
            store.write_missing_regions(reader.missing_regions)


def _windows(info: ScanInfo, top: int, bottom: int) -> Iterator[Roi]:
    for y in range(top, bottom, SCAN_SHARD_PX):
        for x in range(0, info.shape_yx[1], SCAN_SHARD_PX):
            yield Roi(y, y + SCAN_SHARD_PX, x, x + SCAN_SHARD_PX).clipped(info.shape_yx)


def _copy_windows(reader: ScanReader, store: ScanStore, threads: int) -> None:
    def copy(roi: Roi) -> None:
        store.write_scan(roi, reader.read(roi.rows, roi.columns))
        if reader.info.mask:
            store.write_mask(roi, reader.read_mask(roi.rows, roi.columns))

    with OrderedThreadMap(threads) as pool:
        for _ in pool.map(copy, _windows(reader.info, 0, reader.info.shape_yx[0])):
            pass


class _Rows:
    """One row of windows, decoded into unnamed files: samples, and the mask if there is one."""

    def __init__(self, store: ScanStore, stack: contextlib.ExitStack) -> None:
        info = store.info
        shape_yx, colour = (SCAN_SHARD_PX, info.shape_yx[1]), (() if info.channels == 1 else (3,))
        self._samples = stack.enter_context(
            ScratchRaster(store.path, (*shape_yx, *colour), SCAN_SHARD_PX, np.dtype(info.dtype))
        )
        self._mask = (
            stack.enter_context(ScratchRaster(store.path, shape_yx, SCAN_SHARD_PX, info.result_dtype))
            if info.mask
            else None
        )

    def decode(self, reader: ScanReader, top: int) -> None:
        """Fill it with the rows from ``top`` on."""
        height, width = reader.info.shape_yx
        row_bytes = width * reader.info.channels * np.dtype(reader.info.dtype).itemsize
        # A strip too large for any cache is decoded again for every run of rows, so runs are as tall as strips.
        step = max(1, _ROWS_BYTES // row_bytes, min(reader.segment_yx[0], SCAN_SHARD_PX))
        bottom = min(top + SCAN_SHARD_PX, height)
        for y in range(top, bottom, step):
            rows = slice(y, min(y + step, bottom))
            self._samples.write(y - top, 0, reader.read(rows, slice(0, width)))
            if self._mask is not None:
                self._mask.write(y - top, 0, reader.read_mask(rows, slice(0, width)))

    def store(self, store: ScanStore, roi: Roi, top: int) -> None:
        """Write one window of the row."""
        rows = slice(roi.y0 - top, roi.y1 - top)
        store.write_scan(roi, self._samples.read(rows, roi.columns))
        if self._mask is not None:
            store.write_mask(roi, self._mask.read(rows, roi.columns))


def _copy_rows(reader: ScanReader, store: ScanStore, threads: int) -> None:
    """Copy by rows of windows: one is compressed while the next is decoded."""
    info = reader.info
    tops = range(0, info.shape_yx[0], SCAN_SHARD_PX)
    with contextlib.ExitStack() as stack:
        both = [_Rows(store, stack) for _ in range(2)]
        # Entered last, so closed first: nobody uses a scratch file when it is closed.
        pool = stack.enter_context(OrderedThreadMap(threads))
        decoder = stack.enter_context(ThreadPoolExecutor(1))
        decoded = decoder.submit(both[0].decode, reader, tops[0])
        for index, top in enumerate(tops):
            decoded.result()
            if index + 1 < len(tops):
                decoded = decoder.submit(both[(index + 1) % 2].decode, reader, tops[index + 1])

            def copy(roi: Roi, top: int = top, rows: _Rows = both[index % 2]) -> None:
                rows.store(store, roi, top)

            for _ in pool.map(copy, _windows(info, top, min(top + SCAN_SHARD_PX, info.shape_yx[0]))):
                pass
