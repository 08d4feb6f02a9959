"""Costly findings about a file, cached for as long as the file does not change.

A file is identified by its device, inode, size and times. Findings about a file written a moment ago are not cached:
within one clock tick of its file system it could change and look the same (git calls this "racily clean").
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_SETTLED_SECONDS = 2.0

T = TypeVar("T")


class FingerprintCache(Generic[T]):
    """The ``most`` recent findings; safe to use from several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, status: os.stat_result, what: Hashable, find: Callable[[], T]) -> T:
        """The finding ``what`` for the file whose ``status`` was read before; ``find`` runs outside the lock."""
        key = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, what
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        found = find()
        if time.time() - status.st_mtime > _SETTLED_SECONDS:
            with self._lock:
                self._found[key] = found
                while len(self._found) > self._most:
                    self._found.popitem(last=False)
        return found
