"""Shared by both kinds of array: their layout, and errors for damage in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from math import ceil, prod
from pathlib import Path

import zarr
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import LocalStore

from pipeline.errors import StoreError
from pipeline.support.text import reason_of

CHUNK_PX = 512
# The ending of files that zarr has not renamed yet; a killed process leaves them behind.
UNFINISHED = ".partial"
# Which ones: python -m tests.benchmarks.compression.
SCAN_COMPRESSORS = (BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec())
CHROMA_COMPRESSORS = (BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"), Crc32cCodec())
# Statistics of overlaps are small and are read often, piece by piece.
AGREEMENT_COMPRESSORS = (BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec())


class Files(LocalStore):  # type: ignore[misc]
    """A folder with the files of a group, on any file system.

    To write a file only if it does not exist, zarr makes a hard link, which exFAT, SMB and many container mounts do not
    support. Here it is enough to look first: the output folder is locked, so nobody else writes to the group.
    """

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        if not await self.exists(key):
            await self.set(key, value)


def array_of(group: zarr.Group, name: str, path: Path) -> zarr.Array:
    """The array ``name`` of ``group``. Raises StoreError."""
    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{path}: its array {name!r} is not there; colour it again with: colorize-archive run --force")
    # zarr does not store this setting. Without it, all-zero chunks would not be written and would count as missing.
    return array.with_config({"write_empty_chunks": True})


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors on reading (checksums, codecs, the disk) into a StoreError."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"{path}: damaged ({reason_of(error)}); colour it again with: colorize-archive run --force"
        ) from error


def encoded(array: zarr.Array, region: tuple[int | slice, ...], values: NDArray) -> bytes:
    """The bytes of the file in which ``array`` would store ``region``, which is exactly one shard or chunk."""
    files: dict[str, Buffer] = {}
    # Encode into memory: zarr does not report what it wrote, and by then another process may have replaced the file.
    copy = zarr.from_array(files, data=array, write_data=False, config={"write_empty_chunks": True})
    copy[region] = values
    (name,) = (name for name in files if name != "zarr.json")
    return bytes(files[name].to_bytes())


def has_all_shards(folder: Path, array: zarr.Array) -> bool:
    """True if the folder of ``array`` holds a file for every shard."""
    shards = array.shards or array.chunks
    expected = prod(ceil(extent / shard) for extent, shard in zip(array.shape, shards, strict=True))
    found: int = sum(1 for path in (folder / "c").rglob("*") if path.is_file() and path.suffix != UNFINISHED)
    return bool(found == expected)
