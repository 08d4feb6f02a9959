"""A scan file into its Zarr group, band by band."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import ScanNotFoundError, ScanUnreadableError, StoreError
from pipeline.files import file_sha256, remove, writing
from pipeline.readers import open_scan
from pipeline.store import SCAN_SHARD_PX, ScanStore, Source


def source_of(path: Path) -> Source:
    """Name, size and hash of a scan file; reads it once. Raises ScanNotFoundError, ScanUnreadableError."""
    try:
        return Source(path.name, path.stat().st_size, file_sha256(path))
    except FileNotFoundError as error:
        raise ScanNotFoundError(f"{path}: no such file; check the name, or whether its drive is still there") from error
    except OSError as error:
        raise ScanUnreadableError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def ingested(store_path: Path, source: Source) -> ScanStore | None:
    """The store at ``store_path`` if it holds all of exactly ``source``'s samples."""
    try:
        store = ScanStore.open(store_path)
    except StoreError:
        return None
    return store if store.source.sha256 == source.sha256 and store.has_whole_scan() else None


def ingest(path: Path, store_path: Path, source: Source, force: bool = False) -> ScanStore:
    """Copy the original samples of ``path`` into a Zarr group, unless they are there already and ``force`` is off.

    The group is written beside and renamed when it is whole.

    Raises
    ------
    ScanError : the scan cannot be read, or changed while it was. OutputError : the group cannot be written.
    """
    if not force and (store := ingested(store_path, source)) is not None:
        return store
    part = store_path.with_name(f"{store_path.name}.part")
    with writing(store_path):
        try:
            _copy(path, part, source)
            if source_of(path) != source:
                raise ScanUnreadableError(f"{path}: changed while it was read; run again when it is at rest")
            remove(store_path)
            os.replace(part, store_path)
        except BaseException:
            remove(part)
            raise
    return ScanStore.open(store_path)


def _copy(path: Path, part: Path, source: Source) -> None:
    with open_scan(path) as reader:
        store = ScanStore.create(part, reader.info, source)
        height, width = reader.info.shape_yx
        for top in range(0, height, SCAN_SHARD_PX):
            rows = slice(top, min(height, top + SCAN_SHARD_PX))
            store.write_scan(rows, reader.read(rows, slice(0, width)))
