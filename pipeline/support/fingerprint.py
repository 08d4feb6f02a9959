"""When a scan file that was read before need not be read again: its state tells of any change.

A hash vouches for a file as long as size, modification time, change time and inode stay as they were all the while it
was read. Clocks of file systems tick as slowly as every two seconds (FAT), so a file that was written just before may
be written once more without its times showing it: that one is read again.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.support.files import open_file, size_bytes, tree_sha256

_CLOCK_TICK_NS = 2_000_000_000
_KEPT_FILES = 2**16  # some 25 MB


@dataclass(frozen=True)
class StatFingerprint:
    """What changes when a file is written, replaced (its inode), or has its times set back (its change time).

    Not its device: network drives are given another number whenever they are mounted.
    """

    bytes: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> StatFingerprint:
        """Of a file, or of a folder with all that is in it, now. Raises OSError."""
        if path.is_dir():
            return cls._of_folder(path)
        with open_file(path) as stream:  # opened: a network drive then asks its server
            status = os.fstat(stream.fileno())
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    @classmethod
    def _of_folder(cls, path: Path) -> StatFingerprint:
        # Folders too: a file that is gone changes the times of the one that it was in.
        every = [path.stat(), *(found.stat() for found in path.rglob("*"))]
        modified, changed = (max(getattr(s, f"st_{kind}time_ns") for s in every) for kind in "mc")
        return cls(size_bytes(path), modified, changed, every[0].st_ino)

    def is_quiescent(self, read_from_ns: int) -> bool:
        """Whether the file was at rest for so long when reading began that any later change shows in its times."""
        return max(self.modified_ns, self.changed_ns) < read_from_ns - _CLOCK_TICK_NS


@dataclass(frozen=True)
class KnownFile:
    """The hash of a file in a state, and how many pages it has; 0 where they were not counted."""

    state: StatFingerprint
    sha256: str
    pages: int = 0


_safe: dict[Path, KnownFile] = {}
_keeping = threading.Lock()


def hashed(path: Path) -> tuple[KnownFile, bool]:
    """The hash of a file or folder, read once while it stays as it is.

    Says too whether the file can be known by its state alone from now on. Raises OSError.
    """
    began_ns, before = time.time_ns(), StatFingerprint.of(path)
    if (sha256 := hash_in(path, before)) is not None:
        return KnownFile(before, sha256), True
    found = KnownFile(before, tree_sha256(path))
    is_safe = before.is_quiescent(began_ns) and StatFingerprint.of(path) == before
    if is_safe:
        with _keeping:
            _safe[path] = found
            while len(_safe) > _KEPT_FILES:
                del _safe[next(iter(_safe))]
    return found, is_safe


def hash_in(path: Path, state: StatFingerprint) -> str | None:
    """The hash of a file in that state, where this process has read it so, at rest."""
    found = _safe.get(path)
    return found.sha256 if found is not None and found.state == state else None
