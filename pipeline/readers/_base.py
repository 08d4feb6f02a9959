"""Shared by all readers: windows, a cache of decoded segments, sample tables, and errors in one line."""

from __future__ import annotations

import errno
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import (
    ColorizeError,
    ScanDamagedError,
    ScanError,
    ScanUnreachableError,
    ScanUnreadableError,
    ScanUnsupportedError,
    UsageError,
)
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.support.gdal import CPLE_OutOfMemoryError
from pipeline.support.names import shown
from pipeline.types import ReadOptions, Roi, ScanInfo

CACHE_BYTES = 48 * 2**20
_log = logging.getLogger(__name__)
REWRITE = "convert it to 8- or 16-bit gray or RGB"
_CHECKED_BYTES = 2**28
# Error numbers that the system also returns for a bad offset or name in a damaged file.
_BY_DATA = frozenset(
    (errno.EINVAL, errno.EOVERFLOW, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
)

Samples = NDArray[np.unsignedinteger]
Decode = Callable[[range, range], Samples]


class SegmentCache:
    """Least recently used decoded segments, bounded in bytes; safe to use from several threads.

    A segment larger than the bound is returned but not kept.
    """

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._segments: OrderedDict[Hashable, Samples] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def get(self, key: Hashable, decode: Callable[[], Samples]) -> Samples:
        """The segment with this ``key``, decoded now if it is not cached. Decoding runs outside the lock."""
        with self._lock:
            if key in self._segments:
                self._segments.move_to_end(key)
                return self._segments[key]
        segment = decode()
        with self._lock:
            if key not in self._segments and segment.nbytes <= self._limit_bytes:
                self._segments[key] = segment
                self._held_bytes += segment.nbytes
                while self._held_bytes > self._limit_bytes:
                    self._held_bytes -= self._segments.popitem(last=False)[1].nbytes
        return segment

    def clear(self) -> None:
        with self._lock:
            self._segments.clear()
            self._held_bytes = 0


class WindowReader:
    """Base of all readers: window arithmetic, salvage, closing, and errors that name the path.

    A reader defines ``info``, ``_read`` and ``_close``; ``_read_mask`` if ``info`` declares a mask; ``segment_yx`` if
    it decodes more than a row at once; ``embedded`` if its format has metadata.
    """

    def __init__(self, path: Path, reading: ReadOptions | None = None) -> None:
        self.path = path
        self._closed = False
        self._salvage = reading is not None and reading.salvage
        self._missing: set[Roi] = set()

    @property
    def info(self) -> ScanInfo:
        raise NotImplementedError

    @property
    def embedded(self) -> EmbeddedMetadata:
        return EmbeddedMetadata()

    @property
    def missing_regions(self) -> tuple[Roi, ...]:
        return tuple(sorted(self._missing))

    @property
    def segment_yx(self) -> tuple[int, int]:
        """Rows and columns of the unit of decoding and of loss; one row by default."""
        return 1, self.info.shape_yx[1]

    @property
    def decoder_bytes(self) -> int:
        """Memory that decoding holds, beside windows and a :class:`SegmentCache` of the usual size."""
        return 0

    def _read(self, rows: range, columns: range) -> Samples:
        raise NotImplementedError

    def _read_mask(self, rows: range, columns: range) -> Samples:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def read(self, rows: slice, columns: slice) -> Samples:
        """Samples of a window; slices are clipped to the scan as NumPy clips them.

        Returns
        -------
        (h, w) gray or (h, w, 3) RGB, uint8 or uint16, C-contiguous

        Raises
        ------
        ScanUnreadableError
            The data in the window is damaged or cut off.
        ScanUnreachableError
            The drive or the network failed; salvage does not treat that as damage.
        ScanUnsupportedError
            The data uses a variant of its compression that no decoder here knows.
        UsageError
            The reader is closed, or a slice has a step.
        """
        gray = np.iinfo(self.info.dtype).max // 2
        colour = () if self.info.channels == 1 else (3,)
        return self._window(self._read, rows, columns, np.full(colour, gray, self.info.dtype))

    def read_mask(self, rows: slice, columns: slice) -> Samples:
        """(h, w) opacity of a window, as defined by :class:`pipeline.types.ScanReader`. Raises as :meth:`read`."""
        if not self.info.mask:
            raise UsageError(f"{self._name}: has no mask; read it where info.mask says so")
        dtype = self.info.result_dtype
        return self._window(self._read_mask, rows, columns, np.asarray(np.iinfo(dtype).max, dtype))

    @property
    def _name(self) -> str:
        return shown(self.path)

    def _window(self, read: Decode, rows: slice, columns: slice, filling: Samples) -> Samples:
        if self._closed:
            raise UsageError(f"{self._name}: read after close; open the scan again")
        height, width = self.info.shape_yx
        window = range(height)[rows], range(width)[columns]
        if any(axis.step != 1 for axis in window):
            raise UsageError(
                f"{self._name}: a window with a step, {rows} x {columns}; read it whole and stride the result"
            )
        if not window[0] or not window[1]:
            return np.empty((len(window[0]), len(window[1]), *filling.shape), dtype=filling.dtype)
        try:
            return np.ascontiguousarray(self._checked(read, *window))
        except ScanUnreadableError:
            if not self._salvage:
                raise
        return self._salvaged(read, *window, filling)

    def _checked(self, read: Decode, rows: range, columns: range) -> Samples:
        """Call ``read``. Any error becomes one of ours and names the path; MemoryError passes unchanged."""
        try:
            try:
                return read(rows, columns)
            except Exception as error:
                refuse_drive_errors(error)
                raise
        except MemoryError:
            raise
        except ScanError as error:
            raise type(error)(f"{self._name}: {error}") from error.__cause__
        except (NotImplementedError, ImportError) as error:
            raise ScanUnsupportedError(f"{self._name}: {reason(error)}; {REWRITE}") from error
        except Exception as error:  # the libraries below raise from every branch of the tree on damaged data
            raise ScanDamagedError(f"{self._name}: damaged ({reason(error)}); restore it from its source") from error

    def _salvaged(self, read: Decode, rows: range, columns: range, filling: Samples) -> Samples:
        """Read the window segment by segment; unreadable segments are filled and noted."""
        samples = np.empty((len(rows), len(columns), *filling.shape), filling.dtype)
        tall, wide = self.segment_yx
        lost: Roi | None = None
        for y0 in range(rows.start // tall * tall, rows.stop, tall):
            for x0 in range(columns.start // wide * wide, columns.stop, wide):
                ys = range(max(y0, rows.start), min(y0 + tall, rows.stop))
                xs = range(max(x0, columns.start), min(x0 + wide, columns.stop))
                into = samples[ys.start - rows.start :, xs.start - columns.start :][: len(ys), : len(xs)]
                try:
                    into[:] = self._checked(read, ys, xs)
                except ScanUnreadableError:
                    into[:] = filling
                    if not self._missing:
                        _log.info("%s: the first of what cannot be read of it", self._name, exc_info=True)
                    lost = self._lose(Roi(ys.start, ys.stop, xs.start, xs.stop), lost if tall == 1 else None)
        return samples

    def _lose(self, region: Roi, above: Roi | None) -> Roi:
        """Note an unreadable region, merged with the one ``above`` if it continues that downwards; returns it."""
        if above is not None and above.y1 == region.y0 and above.columns == region.columns:
            self._missing.discard(above)
            region = replace(region, y0=above.y0)
        self._missing.add(region)
        return region

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> WindowReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def reason(error: BaseException, limit: int = 160) -> str:
    """The message of a library's exception, on one line."""
    if error.__cause__ is not None and "previous exception" in str(error):  # rasterio hides GDAL's words there
        return reason(error.__cause__, limit)
    # If a file's name is not UTF-8, GDAL gets it under a name of the system's (`pipeline.support.gdal`).
    text = re.sub(r"/proc/self/fd/\d+", "the file", " ".join(str(error).split()))
    return (text if len(text) <= limit else text[: limit - 3] + "...") or type(error).__name__


def refuse_drive_errors(error: BaseException) -> None:
    """Raise ``error`` again if it is not damage: a lack of memory, or a failure of a drive or network. Libraries may
    have wrapped these. Call it before treating an error as damage.

    Raises
    ------
    MemoryError
    ScanUnreachableError : without the path, which the caller adds
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MemoryError):
            raise found
        if isinstance(found, CPLE_OutOfMemoryError):
            raise MemoryError(reason(found)) from error
        if isinstance(found, OSError) and not isinstance(found, ColorizeError) and _is_of_drive(found):
            raise _unreachable(found) from error
        found = found.__cause__


def _is_of_drive(error: OSError) -> bool:
    return error.errno is not None and error.errno not in _BY_DATA


def check_drive(path: Path, share: float = 0) -> None:
    """Read the bytes of a file directly, after a library failed on them without saying why.

    Of a large file only a part is read, around ``share`` (0 to 1) of its length.

    Raises
    ------
    ScanUnreachableError : the bytes cannot be read; the message lacks the path
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, min(int(size * share) - _CHECKED_BYTES // 2, size - _CHECKED_BYTES))
            file.seek(start)
            while file.tell() < start + _CHECKED_BYTES and file.read(2**20):
                pass
    except OSError as error:
        raise _unreachable(error) from error


def _unreachable(error: OSError) -> ScanUnreachableError:
    return ScanUnreachableError(
        f"cannot be read ({error.strerror or type(error).__name__}); try again when its drive is there"
    )


def check_size(shape_yx: tuple[int, int], limit_pixels: int) -> None:
    """Refuse an empty picture or one above the limit; messages lack the path, which the caller adds."""
    height, width = shape_yx
    if height < 1 or width < 1:
        raise ScanUnsupportedError(f"declares {width} x {height} pixels, an empty picture; remove it from the request")
    if height * width > limit_pixels:
        raise ScanUnsupportedError(
            f"declares {width} x {height} pixels, above the limit of {limit_pixels}; raise the limit if that is true"
        )


def scaling_table(bits: int) -> Samples:
    """Samples of ``bits`` bits stretched to the full range of uint8 (up to 8 bits) or uint16.

    >>> scaling_table(2)
    array([  0,  85, 170, 255], dtype=uint8)
    """
    dtype, top = (np.uint8, 255) if bits <= 8 else (np.uint16, 65535)
    steps = 2**bits - 1
    table: Samples = ((np.arange(steps + 1, dtype=np.int64) * top + steps // 2) // steps).astype(dtype)
    return table


def palette_table(table: Samples) -> Samples:
    """The (n, 3) palette, or (n,) if all of it is gray."""
    gray = bool((table[:, 0] == table[:, 1]).all() and (table[:, 0] == table[:, 2]).all())
    return np.ascontiguousarray(table[:, 0] if gray else table)
