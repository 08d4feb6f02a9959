"""A reader for any format that decodes rectangles: caching, conversion, masks, loss after damage."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanDamagedError, ScanUnreachableError, ScanUnreadableError
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.readers._base import CACHE_BYTES, Samples, SegmentCache, WindowReader, reason, refuse_drive_errors
from pipeline.support.row_bands import by_strips
from pipeline.types import ReadOptions, ScanInfo


@dataclass(frozen=True)
class Source:
    """An open file of one format.

    Attributes
    ----------
    info, embedded : as in a reader
    segment_yx : rows and columns of the unit of decoding
    decode : rows and columns -> (h, w, bands) stored samples; called by one thread at a time
    close : closes the file
    convert : (h, w, bands) as stored -> (h, w) or (h, w, 3) as described by ``info``
    opacity : (h, w, bands) as stored -> (h, w) opacity, if ``info.mask`` is set
    sequential : decodes only from the top, so everything after damage is lost
    decoder_bytes : memory that the decoder holds beside the segment that it returns
    """

    info: ScanInfo
    embedded: EmbeddedMetadata
    segment_yx: tuple[int, int]
    decode: Callable[[range, range], NDArray]
    close: Callable[[], None]
    convert: Callable[[NDArray], Samples]
    opacity: Callable[[NDArray], Samples] | None = None
    sequential: bool = False
    decoder_bytes: int = 0


class SegmentedReader(WindowReader):
    """A scan read by windows, decoded segment by segment. Threads take turns."""

    def __init__(self, path: Path, reading: ReadOptions, source: Source, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__(path, reading)
        self._source = source
        self._lock = threading.Lock()
        self._cache = SegmentCache(cache_bytes)
        self._more_cache_bytes = max(0, cache_bytes - CACHE_BYTES)
        self._lost: tuple[int, str] | None = None

    @property
    def info(self) -> ScanInfo:
        return self._source.info

    @property
    def embedded(self) -> EmbeddedMetadata:
        return self._source.embedded

    @property
    def segment_yx(self) -> tuple[int, int]:
        return self._source.segment_yx

    @property
    def decoder_bytes(self) -> int:
        return self._source.decoder_bytes + self._more_cache_bytes

    def _close(self) -> None:
        with self._lock:
            self._cache.clear()
            self._source.close()

    def _read(self, rows: range, columns: range) -> Samples:
        return by_strips(self._source.convert, self._stored(rows, columns))

    def _read_mask(self, rows: range, columns: range) -> Samples:
        assert self._source.opacity is not None
        return by_strips(self._source.opacity, self._stored(rows, columns))

    def _stored(self, rows: range, columns: range) -> NDArray:
        tall, wide = self.segment_yx
        stored: NDArray | None = None
        for row in range(rows.start // tall, (rows.stop - 1) // tall + 1):
            y0, y1 = max(rows.start, row * tall), min(rows.stop, row * tall + tall)
            for column in range(columns.start // wide, (columns.stop - 1) // wide + 1):
                x0, x1 = max(columns.start, column * wide), min(columns.stop, column * wide + wide)
                segment = self._segment(row, column)
                part = segment[y0 - row * tall : y1 - row * tall, x0 - column * wide : x1 - column * wide]
                if stored is None:
                    stored = np.empty((len(rows), len(columns), segment.shape[2]), segment.dtype)
                stored[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start] = part
        assert stored is not None
        return stored

    def _segment(self, row: int, column: int) -> NDArray:
        # Lock the whole look-up, not just the decoding. Otherwise several threads that wait for one segment would all
        # decode it, and a decoder that goes back may have to start from the first row.
        with self._lock:
            return self._cache.get((row, column), lambda: self._decoded(row, column))

    def _decoded(self, row: int, column: int) -> NDArray:
        (height, width), (tall, wide) = self.info.shape_yx, self.segment_yx
        if self._lost and row >= self._lost[0]:
            # libjpeg warns of missing data once, and then returns gray.
            raise ScanDamagedError(self._lost[1])
        rows = range(row * tall, min(row * tall + tall, height))
        columns = range(column * wide, min(column * wide + wide, width))
        try:
            return self._source.decode(rows, columns)
        except (MemoryError, ScanUnreachableError):
            raise
        except Exception as error:
            refuse_drive_errors(error)
            if self._source.sequential:
                self._lost = row, f"damaged ({reason(error)}); restore it from its source"
            raise


def open_regions(
    path: Path, reading: ReadOptions, source_of: Callable[[BinaryIO, ReadOptions], Source]
) -> SegmentedReader:
    """Open ``path`` and read it as ``source_of`` says, which closes the file later; if it raises, the file is closed.

    Raises
    ------
    ScanUnreadableError : the file cannot be opened; the message lacks the path. Besides, what ``source_of`` raises.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        refuse_drive_errors(error)
        raise ScanUnreadableError(f"cannot be read ({reason(error)}); check its permissions and disk") from error
    try:
        source = source_of(file, reading)
    except BaseException as error:
        file.close()
        refuse_drive_errors(error)
        raise
    return SegmentedReader(path, reading, source)
