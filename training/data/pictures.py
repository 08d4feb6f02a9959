"""A sequence of decoded pictures, with a cache in memory that all workers share.

The cache is one anonymous shared mapping, reserved before any worker is forked and filled by whichever process decodes
a picture first: eight workers share one copy. The system allocates it page by page as it fills. A picture is written
completely before the index points to it; if two workers decode the same picture at once, one copy is wasted.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from engines.machine import no_semaphores
from training.data.arrays import LabArrays
from training.data.decode import U8, read_rgb
from training.data.files import Photograph
from training.errors import DataError

Space = Literal["rgb", "lab8"]
_LOCK_SECONDS = 5.0  # the lock is held for microseconds; longer means that its holder was killed


class Sample(NamedTuple):
    """One picture: ``pixels`` (H, W, 3) uint8, sRGB or OpenCV's 8-bit Lab (L* x 255 / 100, a* + 128, b* + 128)."""

    pixels: U8
    space: Space


class Source(Protocol):
    """A source of pictures: the record of each, and its pixels on demand."""

    @property
    def photographs(self) -> Sequence[Photograph]: ...

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def space(self) -> Space: ...

    def decode(self, index: int) -> U8: ...


@dataclass(frozen=True)
class PhotographFiles:
    """Picture files; ``names`` are their paths within the collection."""

    photographs: tuple[Photograph, ...]
    names: tuple[str, ...]
    space: Space = "rgb"

    def decode(self, index: int) -> U8:
        """(H, W, 3) RGB.

        Raises
        ------
        DataError : the file has gone or been damaged since the collection was opened.
        """
        path = self.photographs[index].path
        rgb = read_rgb(path)
        if rgb is None:
            raise DataError(f"{path}: could be read when training began and now cannot; put it back and resume")
        return rgb


@dataclass(frozen=True)
class LabSamples:
    """The samples of the NumPy layout at ``indices``."""

    arrays: LabArrays
    indices: tuple[int, ...]
    photographs: tuple[Photograph, ...]
    names: tuple[str, ...]
    space: Space = "lab8"

    def decode(self, index: int) -> U8:
        """(H, W, 3) 8-bit Lab."""
        return self.arrays.read(self.indices[index])


class _Cache:
    """Decoded pictures in memory that forked workers share.

    The mapping begins with a table of int64: the first free byte, then offset (0: absent), height and width of each
    picture.
    """

    def __init__(self, pictures: int, limit_bytes: int) -> None:
        table_bytes = 8 * (1 + 3 * pictures)
        self._memory = mmap.mmap(-1, table_bytes + limit_bytes)
        self._table = np.frombuffer(self._memory, np.int64, 1 + 3 * pictures)
        self._table[0] = table_bytes
        # Without shared memory there are no workers: only threads put pictures here.
        self._lock = threading.Lock() if no_semaphores() else multiprocessing.Lock()

    def get(self, index: int) -> U8 | None:
        offset, height, width = (int(n) for n in self._table[1 + 3 * index : 4 + 3 * index])
        if not offset:
            return None
        pixels = np.frombuffer(self._memory, np.uint8, height * width * 3, offset).reshape(height, width, 3)
        pixels.flags.writeable = False  # changing a crop in place would change the picture for all
        return pixels

    def put(self, index: int, pixels: U8) -> None:
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            return
        try:
            offset = int(self._table[0])
            if offset + pixels.size > len(self._memory):
                return
            self._table[0] = offset + pixels.size
        finally:
            self._lock.release()
        np.frombuffer(self._memory, np.uint8, pixels.size, offset)[:] = pixels.reshape(-1)
        self._table[2 + 3 * index : 4 + 3 * index] = pixels.shape[:2]
        self._table[1 + 3 * index] = offset


class Pictures:
    """Pictures in a fixed order, decoded on demand; the first ones requested are kept, up to ``cache_bytes``.

    Forking shares the cache; pickling drops it.
    """

    def __init__(self, source: Source, cache_bytes: int = 0) -> None:
        self.source = source
        self._cache: _Cache | None = None
        if cache_bytes > 0 and len(self):
            try:
                self._cache = _Cache(len(self), cache_bytes)
            except (OSError, OverflowError, ValueError):  # a system without overcommit
                self._cache = None

    def __len__(self) -> int:
        return len(self.source.photographs)

    @property
    def photographs(self) -> Sequence[Photograph]:
        return self.source.photographs

    @property
    def names(self) -> Sequence[str]:
        """Name of each picture within the collection; a sample of a NumPy file has its number in brackets."""
        return self.source.names

    @property
    def paths(self) -> list[Path]:
        return [photograph.path for photograph in self.photographs]

    @property
    def groups(self) -> list[str]:
        """Which photograph each picture was cut from."""
        return [photograph.group for photograph in self.photographs]

    def read(self, index: int) -> Sample:
        """Picture ``index``; its pixels must not be written to.

        Raises
        ------
        DataError : the picture can no longer be read.
        """
        pixels = self._cache.get(index) if self._cache else None
        if pixels is None:
            pixels = self.source.decode(index)
            if self._cache:
                self._cache.put(index, pixels)
        return Sample(pixels, self.source.space)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker that was not forked would keep its own pictures: as much memory again for each worker.
        return Pictures, (self.source,)


def processes_here() -> int:
    """Number of processes of a training run on this machine, one for each GPU, which share memory and processors."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or 1)
