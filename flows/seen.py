"""When a scan file that was read before need not be read again: the cheap check, before any hash."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.files import file_sha256

# Clocks of file systems tick as slowly as every two seconds (FAT): a file that was written so shortly before it was
# read may be written once more without its times showing it.
_CLOCK_TICK_NS = 2_000_000_000


@dataclass(frozen=True)
class FileState:
    """What changes when a file is written, replaced (its inode), or has its times set back (its change time).

    Not its device: network drives are given another number whenever they are mounted.
    """

    bytes: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Of a plain file now. Raises OSError, for folders too: their own times do not tell of the files in them."""
        with path.open("rb") as stream:  # opened: a network drive then asks its server
            status = os.fstat(stream.fileno())
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def is_settled(self, read_from_ns: int) -> bool:
        """Whether the file was at rest for so long when reading began that any later change shows in its times."""
        return max(self.modified_ns, self.changed_ns) < read_from_ns - _CLOCK_TICK_NS


@dataclass(frozen=True)
class KnownFile:
    """The hash of a file in a state, and how many pages it has; 0 where they were not counted."""

    state: FileState
    sha256: str
    pages: int = 0


def hashed(path: Path) -> tuple[KnownFile, bool]:
    """Read a plain file; says too whether its hash will be safe to know by its state alone. Raises OSError."""
    began_ns, before = time.time_ns(), FileState.of(path)
    sha256 = file_sha256(path)
    return KnownFile(before, sha256), before.is_settled(began_ns) and FileState.of(path) == before
