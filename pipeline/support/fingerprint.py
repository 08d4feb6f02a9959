"""Whether a scan file must be read again to know its hash: its state reveals any change.

A hash stays valid as long as size, modification time, change time and inode are those that the file had during the
whole reading. Clocks of file systems tick as slowly as every two seconds (FAT), so a file written just before the
reading may change once more without its times showing it: such a file is read again.
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
    """Values that change when a file is written, replaced (inode), or has its times set back (change time).

    The device is not among them: network drives get another number at each mount.
    """

    bytes: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> StatFingerprint:
        """The current state of a file, or of a folder with all its contents. Raises OSError."""
        try:
            with open_file(path) as stream:  # opening makes a network drive ask its server
                status = os.fstat(stream.fileno())
        except IsADirectoryError:
            return cls._of_folder(path)
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    @classmethod
    def _of_folder(cls, path: Path) -> StatFingerprint:
        # Include folders: deleting a file changes the times of its folder.
        every = [path.stat(), *(found.stat() for found in path.rglob("*"))]
        modified, changed = (max(getattr(s, f"st_{kind}time_ns") for s in every) for kind in "mc")
        return cls(size_bytes(path), modified, changed, every[0].st_ino)

    def is_quiescent(self, read_from_ns: int) -> bool:
        """True if the file was unchanged for so long before reading began that any later change shows in its times."""
        return max(self.modified_ns, self.changed_ns) < read_from_ns - _CLOCK_TICK_NS


@dataclass(frozen=True)
class KnownFile:
    """The hash of a file in a given state, and its number of pages; 0 if not counted."""

    state: StatFingerprint
    sha256: str
    pages: int = 0


_safe: dict[Path, KnownFile] = {}
_keeping = threading.Lock()


def hashed(path: Path) -> tuple[KnownFile, bool]:
    """The hash of a file or folder, which is read only once as long as it does not change.

    Also returns whether the state alone identifies the file from now on. Raises OSError.
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
    """The hash of a file in that ``state``, if this process has read it then, unchanged; else None."""
    found = _safe.get(path)
    return found.sha256 if found is not None and found.state == state else None
