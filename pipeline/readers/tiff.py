"""TIFF and BigTIFF of any kind of gray or colour, decoded one strip or tile at a time.

The kind of a scan is decided from its tags, before any memory for pixels is requested; only samples of unknown range
take a pass through the picture. `tifffile` parses and decodes; GDAL decodes what `tifffile` cannot. `Segments` chooses
the strips or tiles that a window touches and caches those decoded last. Samples then go through a scale (to 8 or 16
bits), the removal of premultiplied opacity, and a tone (a profile, or another colour space).

References
----------
TIFF 6.0 specification (Aldus, 1992); Adobe TIFF Technical Note 2 (JPEG in TIFF); GDAL's GTiff driver (GDAL_NODATA,
masks, sparse files).
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.errors import ScanDamagedError, ScanError, UsageError
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.readers._base import (
    CACHE_BYTES,
    Decode,
    Samples,
    SegmentCache,
    WindowReader,
    check_size,
    reason,
    refuse_drive_errors,
)
from pipeline.readers._tiff import pages, tags
from pipeline.readers._tiff.kind import kind_of, palette_of
from pipeline.readers._tiff.scale import (
    Range,
    Scale,
    linear_scale,
    mask_scale,
    needs_range,
    nodata_of,
    opacity_range,
    plain_scale,
    range_note,
    range_of,
    to_depth,
)
from pipeline.readers._tiff.segments import Segments
from pipeline.readers._tiff.tone import tone_of, unpremultiplied
from pipeline.support.row_bands import by_strips
from pipeline.types import Mask, ReadOptions, ScanInfo

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# tifffile logs damage and carries on; damage that matters here is raised as one of our errors instead.
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)


def recognizes(head: bytes) -> bool:
    return head[:4] in _MAGIC


def open_reader(path: Path, reading: ReadOptions) -> TiffReader:
    return TiffReader(path, reading)


def page_count(path: Path, reading: ReadOptions) -> int:
    return len(pages.chain_of(path, salvage=reading.salvage).pictures)


class TiffReader(WindowReader):
    """One picture of a TIFF or BigTIFF file, read by windows. Several threads may read at once."""

    def __init__(self, path: Path, reading: ReadOptions, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__(path, reading)
        self._file_lock = threading.Lock()
        self._cache = SegmentCache(cache_bytes)
        self._opened: list[Segments] = []
        self._chain = pages.chain_of(path, salvage=reading.salvage)
        self._file = pages.open_file(path, self._chain)
        try:
            page, mask_page = pages.choose(self._file, self._chain, reading.page)
            if not all(isinstance(extent, int) for extent in (page.imagelength, page.imagewidth)):
                raise ScanDamagedError("damaged TIFF tags (several widths or heights); restore it from its source")
            check_size((page.imagelength, page.imagewidth), reading.limit_pixels)
            self._page = page
            self._describe(page, mask_page)
        except ScanError:
            self._close()
            raise
        except Exception as error:
            self._close()
            refuse_drive_errors(error)
            raise ScanDamagedError(f"damaged TIFF tags ({reason(error)}); restore it from its source") from error

    def _describe(self, page: tifffile.TiffPage, mask_page: tifffile.TiffPage | None) -> None:
        self._kind = kind = kind_of(page)
        used = kind.channels if kind.alpha is None else (*kind.channels, kind.alpha)
        self._segments = segments = self._open(page, used)
        self._mask_segments = None if mask_page is None else self._open(mask_page, (0,))
        self._mask_scale = None if mask_page is None else mask_scale(mask_page)
        self._nodata = nodata_of(page, segments.dtype)
        over = self._range()
        self._scale = self._scale_of(over)
        samples = 3 if self._scale.table is not None and self._scale.table.ndim == 2 else len(kind.channels)
        self._tone = tone = tone_of(page, kind, self._scale.dtype, samples)
        self._gaps = over is not None and over.gaps
        self._opacity = self._opacity_scale()
        notes = [range_note(page, segments.dtype, over, inverted=kind.inverted)] if over is not None else []
        notes += [note for note in (kind.note, tone.note) if note]
        notes += ["its premultiplied opacity was divided out"] if kind.associated else []
        dropped = *kind.dropped, *tone.dropped, *segments.missing, *self._chain.dropped
        metadata = tags.metadata_of(page, len(self._chain.pictures), notes, dropped)
        mask = self._mask()
        self._info = ScanInfo(
            shape_yx=(page.imagelength, page.imagewidth),
            channels=tone.channels,
            dtype=tone.dtype.name,
            metadata=metadata,
            tone=tone.name,
            depth=self._scale.dtype.name,
            mask=mask,
            nodata=self._written_nodata() if mask == "nodata" else None,
        )

    def _open(self, page: tifffile.TiffPage, channels: tuple[int, ...]) -> Segments:
        segments = Segments(self.path, page, channels, self._file_lock, self._cache, salvage=self._salvage)
        self._opened.append(segments)
        return segments

    def _range(self) -> Range | None:
        if not needs_range(self._page, self._segments.dtype):
            return None
        return range_of(self._page, self._segments, self._kind.channels, self._nodata, salvage=self._salvage)

    def _scale_of(self, over: Range | None) -> Scale:
        page, dtype, inverted = self._page, self._segments.dtype, self._kind.inverted
        if self._kind.model == "palette":
            table = palette_of(page)
            return Scale(table.dtype, table)
        if over is not None:
            return linear_scale(dtype, over, inverted=inverted)
        return plain_scale(page, dtype, inverted=inverted)

    def _opacity_scale(self) -> Scale:
        dtype = self._segments.dtype
        if needs_range(self._page, dtype):
            return linear_scale(dtype, opacity_range(self._page, dtype))
        return plain_scale(self._page, dtype)

    def _mask(self) -> Mask:
        if self._kind.alpha is not None or self._mask_segments is not None:
            return "alpha"
        return "nodata" if self._nodata is not None or self._gaps or self._segments.layout.sparse else ""

    def _written_nodata(self) -> int:
        if self._nodata is None or self._kind.model == "palette":
            return 0
        return self._nodata.written(self._scale.dtype)

    @property
    def info(self) -> ScanInfo:
        return self._info

    @functools.cached_property
    def _carried(self) -> EmbeddedMetadata:
        with self._file_lock:
            return tags.carried_of(self._page, self.path)

    @property
    def embedded(self) -> EmbeddedMetadata:
        """The metadata blocks and tags of this page; read on first access."""
        if self._closed and "_carried" not in self.__dict__:
            raise UsageError(f"{self._name}: asked what it carries after close; open the scan again")
        return self._carried

    @property
    def segment_yx(self) -> tuple[int, int]:
        """Rows and columns of the unit of decoding: a tile, a strip, or a part of an uncompressed strip."""
        return self._segments.layout.size_yx

    @property
    def decoder_bytes(self) -> int:
        return sum(segments.decoder_bytes for segments in self._opened)

    def _close(self) -> None:
        self._cache.clear()
        for segments in self._opened:
            segments.close()
        self._file.close()

    def _salvaged(self, read: Decode, rows: range, columns: range, filling: Samples) -> Samples:
        """As in any reader, but the complete rows of a truncated strip are not lost with its missing ones."""
        ends = [rows.start, *self._segments.breaks(rows), rows.stop]
        parts = [
            super(TiffReader, self)._salvaged(read, range(start, stop), columns, filling)
            for start, stop in itertools.pairwise(ends)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _stored(self, rows: range, columns: range, channels: tuple[int, ...]) -> NDArray:
        filling: Any = 0 if self._nodata is None else self._nodata.value
        return self._segments.read(rows, columns, channels, filling)

    def _read(self, rows: range, columns: range) -> Samples:
        kind = self._kind
        if kind.associated and kind.alpha is not None:
            return by_strips(self._unpremultiplied, self._stored(rows, columns, (*kind.channels, kind.alpha)))
        return by_strips(self._converted, self._stored(rows, columns, kind.channels))

    def _converted(self, stored: NDArray) -> Samples:
        return self._tone.convert(self._scaled(stored))

    def _unpremultiplied(self, stored: NDArray) -> Samples:
        """The samples of stored colours that were multiplied with the opacity in the last channel."""
        opacity = to_depth(self._opacity(stored[:, :, -1]), self._scale.dtype)
        return self._tone.convert(unpremultiplied(self._scaled(stored[:, :, :-1]), opacity))

    def _scaled(self, stored: NDArray) -> Samples:
        if self._scale.table is not None and self._scale.table.ndim == 2:
            return self._scale(stored[:, :, 0])
        return self._scale(stored)

    def _read_mask(self, rows: range, columns: range) -> Samples:
        dtype = self._info.result_dtype
        top = np.iinfo(dtype).max
        opacity: Samples = np.full((len(rows), len(columns)), top, dtype)
        if self._kind.alpha is not None:
            opacity = to_depth(self._opacity(self._stored(rows, columns, (self._kind.alpha,))[:, :, 0]), dtype)
        if self._mask_segments is not None and self._mask_scale is not None:
            page = self._mask_scale(self._mask_segments.read(rows, columns, (0,))[:, :, 0])
            opacity = np.minimum(opacity, to_depth(page, dtype))
        return np.where(self._absent(rows, columns), dtype.type(0), opacity)

    def _absent(self, rows: range, columns: range) -> NDArray[np.bool_]:
        """(h, w), True for pixels without a picture: nodata, NaN or infinite samples, or a missing segment."""
        absent = ~self._segments.present(rows, columns)
        if self._nodata is not None or self._gaps:
            stored = self._stored(rows, columns, self._kind.channels)
            nothing = ~np.isfinite(stored) if self._gaps else np.zeros(stored.shape, bool)
            if self._nodata is not None:
                nothing |= self._nodata.where(stored)
            absent |= nothing.all(axis=2)
        return absent
