"""TIFF and BigTIFF: gray, palette or RGB, up to 16 bits unsigned, decoded one strip or tile at a time.

What a scan is gets decided from its tags alone, before any pixel memory is asked for. `tifffile` parses and decodes;
`TiffReader` chooses the segments (strips or tiles) that a window touches and keeps the last ones it decoded.

A hard choice: uncompressed strips are cut into shorter ones, because many writers store a whole gigapixel picture as a
single strip. Rows of uncompressed data start at known bytes, so nothing needs to be read but the rows of the window.
A *compressed* strip can only be decoded as a whole; beyond `SEGMENT_LIMIT_BYTES` it is refused.

References
----------
TIFF 6.0 specification (Aldus, 1992), sections 3-8, 18, 22; Adobe TIFF Technical Note 2 (JPEG in TIFF).
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tifffile
from numpy.typing import NDArray

from ..errors import ScanError, ScanUnreadableError, ScanUnsupportedError
from ..types import Reading, ScanInfo
from ._window import (
    CACHE_BYTES,
    PROFILE_DROPPED,
    REWRITE,
    Samples,
    SegmentCache,
    WindowReader,
    check_size,
    palette_table,
    reason,
    scaling_table,
)

ENDINGS = (".tif", ".tiff")
SEGMENT_LIMIT_BYTES = 2**30
_CUT_BYTES = 4 * 2**20  # uncompressed strips are cut to about this
_MAX_PAGES = 4096  # beyond, only the number of pages is looked up

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_COMPRESSIONS = frozenset({6, 7, 33007, 34892})
_PHOTOMETRIC_NAMES = {
    4: "a transparency mask",
    5: "CMYK",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "a colour filter array (camera raw)",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6

# tifffile reports damage by logging and goes on; what matters here is raised as one of our errors instead.
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)


def recognizes(head: bytes) -> bool:
    return head[:4] in _MAGIC


def open_reader(path: Path, reading: Reading) -> TiffReader:
    return TiffReader(path, reading)


@dataclass(frozen=True)
class _Kind:
    """How stored samples become ours: the channels kept, then a table or an inversion."""

    keep: int
    channels: int
    dtype: str
    table: Samples | None
    invert: bool
    dropped: tuple[str, ...]

    def convert(self, stored: Samples) -> Samples:
        """(h, w, keep) as stored -> (h, w) or (h, w, 3) as read."""
        samples = stored[:, :, 0] if self.keep == 1 else stored
        if self.table is not None:
            return self.table.take(samples, axis=0, mode="clip")
        return ~samples if self.invert else samples


@dataclass(frozen=True)
class _Layout:
    """Where each segment lies, in the picture and in the file.

    ``byte_offsets`` and ``byte_counts`` are those of the file's own segments. ``row_bytes`` is None for segments that
    decode only as a whole; else ``stored_rows`` rows of each were cut into segments of ``size_yx[0]`` rows.
    """

    shape_yx: tuple[int, int]
    size_yx: tuple[int, int]
    grid_yx: tuple[int, int]
    planes: int
    byte_offsets: NDArray[np.int64]
    byte_counts: NDArray[np.int64]
    row_bytes: int | None
    stored_rows: int

    def index(self, plane: int, row: int, column: int) -> int:
        return (plane * self.grid_yx[0] + row) * self.grid_yx[1] + column

    def covered_yx(self, row: int, column: int) -> tuple[int, int]:
        """Rows and columns of the picture that a segment holds; the last ones are partial."""
        (height, width), (tall, wide) = self.shape_yx, self.size_yx
        return min(tall, height - row * tall), min(wide, width - column * wide)

    def extent(self, plane: int, row: int, column: int) -> tuple[int, int]:
        """First byte and number of bytes of a segment."""
        if self.row_bytes is None:
            at = self.index(plane, row, column)
            return int(self.byte_offsets[at]), int(self.byte_counts[at])
        top = row * self.size_yx[0]
        strips = -(-self.shape_yx[0] // self.stored_rows)
        offset = int(self.byte_offsets[plane * strips + top // self.stored_rows])
        rows = self.covered_yx(row, column)[0]
        return offset + top % self.stored_rows * self.row_bytes, rows * self.row_bytes


class TiffReader(WindowReader):
    """One picture of a TIFF or BigTIFF file, by windows. Several threads may read at once."""

    def __init__(self, path: Path, reading: Reading, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__(path, reading)
        self._file_lock = threading.Lock()
        self._cache = SegmentCache(cache_bytes)
        try:
            self._file = tifffile.TiffFile(path)
        except Exception as error:  # damaged tags raise IndexError, TypeError, struct.error and more
            raise ScanUnreadableError(
                f"damaged TIFF structure ({reason(error)}); restore it from its source"
            ) from error
        try:
            page, dropped = _choose_page(self._file)
            check_size((page.imagelength, page.imagewidth), reading.limit_pixels)
            self._kind = _kind_of(page)
            self._layout = _layout_of(page, self._file.filehandle.size)
            self._page = page
            self._decode = page.decode  # built here: building it is not safe from several threads
            self._info = ScanInfo(
                shape_yx=(page.imagelength, page.imagewidth),
                channels=self._kind.channels,
                dtype=self._kind.dtype,
                metadata=_metadata_of(page, (*self._kind.dropped, *dropped)),
            )
        except ScanError:
            self._file.close()
            raise
        except Exception as error:
            self._file.close()
            raise ScanUnreadableError(f"damaged TIFF tags ({reason(error)}); restore it from its source") from error

    @property
    def info(self) -> ScanInfo:
        return self._info

    @property
    def segment_yx(self) -> tuple[int, int]:
        """Rows and columns of a tile, or of a strip or a cut of one: what is decoded at once."""
        return self._layout.size_yx

    def _close(self) -> None:
        self._cache.clear()
        self._file.close()

    def _read(self, rows: range, columns: range) -> Samples:
        layout, kind = self._layout, self._kind
        tall, wide = layout.size_yx
        stored = np.empty((len(rows), len(columns), kind.keep), dtype=_stored_dtype(self._page))
        for row in range(rows.start // tall, (rows.stop - 1) // tall + 1):
            y0, y1 = max(rows.start, row * tall), min(rows.stop, row * tall + tall)
            for column in range(columns.start // wide, (columns.stop - 1) // wide + 1):
                x0, x1 = max(columns.start, column * wide), min(columns.stop, column * wide + wide)
                into = slice(y0 - rows.start, y1 - rows.start), slice(x0 - columns.start, x1 - columns.start)
                part = slice(y0 - row * tall, y1 - row * tall), slice(x0 - column * wide, x1 - column * wide)
                if layout.planes == 1:
                    stored[into] = self._segment(0, row, column)[part][:, :, : kind.keep]
                else:
                    for plane in range(kind.keep):
                        stored[(*into, plane)] = self._segment(plane, row, column)[part][:, :, 0]
        return kind.convert(stored)

    def _segment(self, plane: int, row: int, column: int) -> Samples:
        key = self._layout.index(plane, row, column)
        return self._cache.get(key, lambda: self._decoded(plane, row, column))

    def _decoded(self, plane: int, row: int, column: int) -> Samples:
        """(h, w, samples) of one segment, at least as large as the part of the picture that it holds."""
        layout, page = self._layout, self._page
        offset, count = layout.extent(plane, row, column)
        covered = layout.covered_yx(row, column)
        if count == 0:  # `_layout_of` let it through: a sparse GeoTIFF
            samples = 1 if layout.planes > 1 else page.samplesperpixel
            return np.full((*covered, samples), page.nodata, dtype=_stored_dtype(page))
        with self._file_lock:
            self._file.filehandle.seek(offset)
            data = self._file.filehandle.read(count)
        where = f"segment at row {row * layout.size_yx[0]}, column {column * layout.size_yx[1]}"
        if len(data) != count:
            raise ScanUnreadableError(f"cut off: {where} ends after {len(data)} of {count} bytes; copy it again")
        if page.compression in _JPEG_COMPRESSIONS:
            _check_jpeg_size(data, layout.size_yx, where)
        try:
            decoded: Any = self._decode(
                data, layout.index(plane, row, column), jpegtables=page.jpegtables, jpegheader=page.jpegheader
            )[0]
        except Exception as error:
            if page.compression == 6:  # withdrawn in 1995; only files that embed a complete JPEG can be decoded
                raise ScanUnsupportedError(
                    "an old-style JPEG TIFF without a complete JPEG inside, which is not handled; save it as TIFF again"
                ) from error
            raise
        samples = np.asarray(decoded)[0]
        if samples.dtype == bool:
            samples = samples.view(np.uint8)
        if samples.dtype != _stored_dtype(page) or samples.shape[0] < covered[0] or samples.shape[1] < covered[1]:
            raise ScanUnreadableError(
                f"damaged: {where} holds {samples.dtype} {samples.shape}, not what its tags declare; restore it"
            )
        checked: Samples = samples
        return checked


def _choose_page(file: tifffile.TiffFile) -> tuple[tifffile.TiffPage, list[str]]:
    """The first page that is a picture of its own, and a note on those left out.

    Bits 0 and 2 of NewSubfileType mark reduced copies and masks, which are not pages.
    """
    if len(file.pages) == 0:
        raise ScanUnreadableError("holds no picture; restore it from its source")
    count = len(file.pages)
    chosen: list[int] = []
    for index in range(min(count, _MAX_PAGES)):
        try:
            if not int(file.pages[index].subfiletype) & 0b101:
                chosen.append(index)
        except Exception:
            if index == 0:
                raise
            break  # later pages are damaged, but none of them is read
    if not chosen and file.pages.first.subifds:
        raise ScanUnsupportedError("only a preview and raw data, as cameras write; develop it to TIFF first")
    page = file.pages[chosen[0] if chosen else 0]
    if count > _MAX_PAGES:
        return page, [f"pages 2-{count}"]
    others = [index + 1 for index in chosen[1:]]
    if not others:
        return page, []
    return page, [f"page {others[0]}" if len(others) == 1 else f"pages {others[0]}-{others[-1]}"]


def _photometric_of(page: tifffile.TiffPage) -> int:
    if 262 not in page.tags and page.compression != 6:
        return _RGB if page.samplesperpixel >= 3 else _BLACK_IS_ZERO
    return int(page.photometric)


def _stored_dtype(page: tifffile.TiffPage) -> np.dtype[np.unsignedinteger]:
    return np.dtype(np.uint8 if page.bitspersample <= 8 else np.uint16)


def _unsupported(what: str) -> NoReturn:
    raise ScanUnsupportedError(f"{what}, which is not handled; {REWRITE}")


def _kind_of(page: tifffile.TiffPage) -> _Kind:
    photometric, bits, samples = _photometric_of(page), page.bitspersample, int(page.samplesperpixel)
    if photometric in _PHOTOMETRIC_NAMES:
        _unsupported(f"holds {_PHOTOMETRIC_NAMES[photometric]}")
    if page.imagedepth != 1:
        _unsupported(f"a volume of {page.imagedepth} planes")
    if not isinstance(bits, int):
        _unsupported(f"samples of unequal depth ({', '.join(map(str, bits))} bits)")
    if page.sampleformat != 1:
        formats = {2: "signed integer", 3: "floating point", 5: "complex integer", 6: "complex"}
        _unsupported(f"{formats.get(page.sampleformat, 'untyped')} samples of {bits} bits")
    if not 1 <= bits <= 16:
        _unsupported(f"{bits}-bit integer samples")
    if not 1 <= samples <= 4:
        _unsupported(f"{samples} channels")
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR):
        _unsupported(f"photometric interpretation {photometric}")
    if photometric == _YCBCR and page.compression not in _JPEG_COMPRESSIONS:
        _unsupported("YCbCr without JPEG compression")

    # Rasters of three or four bands are often marked "black is zero", for want of a better word.
    colour = photometric in (_RGB, _YCBCR) or (photometric == _BLACK_IS_ZERO and samples >= 3)
    keep = 3 if colour else 1
    if samples < keep:
        raise ScanUnreadableError(f"declares colour with {samples} channels, of 3; restore it from its source")
    table: Samples | None = None
    if photometric == _PALETTE:
        table = _palette_of(page)
    elif bits not in (8, 16):
        table = scaling_table(bits)
    invert = photometric == _WHITE_IS_ZERO
    if table is not None and invert:
        table, invert = ~table, False
    channels = 3 if colour or (table is not None and table.ndim == 2) else 1
    dtype = table.dtype if table is not None else _stored_dtype(page)
    return _Kind(keep, channels, dtype.name, table, invert, _extra_channels(page, samples - keep))


def _extra_channels(page: tifffile.TiffPage, extra: int) -> tuple[str, ...]:
    if extra == 0:
        return ()
    marked = page.tags.valueof(338, default=())
    marked = marked if isinstance(marked, tuple) else (marked,)
    if extra == 1 and marked and int(marked[-1]) in (1, 2):
        return ("alpha channel",)
    return (f"{extra} extra channel{'s' if extra > 1 else ''}",)


def _palette_of(page: tifffile.TiffPage) -> Samples:
    """(n, 3) or, if gray, (n,): uint8 for indices of up to 8 bits, else uint16."""
    entries = 2**page.bitspersample
    colormap = page.tags.valueof(320)
    if colormap is None or np.size(colormap) < 3 * entries:
        raise ScanUnreadableError(f"palette picture without its {entries} colours; restore it from its source")
    table = np.asarray(colormap, dtype=np.uint16).reshape(-1)[: 3 * entries].reshape(3, entries).T
    if page.bitspersample <= 8:
        # Some writers fill the 16-bit map with 8-bit values; libtiff's tools make the same exception.
        table = (table if table.max() < 256 else table >> 8).astype(np.uint8)
    return palette_table(table)


def _layout_of(page: tifffile.TiffPage, file_bytes: int) -> _Layout:
    """Check that every segment lies inside the file and is of a size that can be decoded."""
    if page.compression != 1:
        try:
            tifffile.TIFF.DECOMPRESSORS[page.compression]
        except KeyError:
            _unsupported(f"compression {_compression_name(page)}")
    height, width = page.imagelength, page.imagewidth
    planes = page.samplesperpixel if page.planarconfig == 2 and page.samplesperpixel > 1 else 1
    samples = page.samplesperpixel if planes == 1 else 1
    tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
    if tall < 1 or wide < 1 or (page.is_tiled and page.tiledepth != 1):
        raise ScanUnreadableError(f"declares segments of {wide} x {tall} pixels; restore it from its source")
    stored_rows, row_bytes = tall, None
    segments = -(-height // tall) * -(-width // wide) * planes
    if len(page.dataoffsets) < segments or len(page.databytecounts) < segments:
        found = min(len(page.dataoffsets), len(page.databytecounts))
        raise ScanUnreadableError(f"lists {found} of its {segments} strips or tiles; copy it again from its source")
    offsets = np.asarray(page.dataoffsets[:segments], dtype=np.int64)
    counts = np.asarray(page.databytecounts[:segments], dtype=np.int64)
    if page.compression == 1 and page.predictor == 1 and not page.is_tiled:
        row_bytes = -(-width * samples * page.bitspersample // 8)
        # Old writers leave wrong byte counts on uncompressed strips; the geometry says what they must be.
        rows = np.minimum(tall, height - np.arange(segments // planes) * tall)
        counts = np.where(counts > 0, np.tile(rows * row_bytes, planes), 0)
        page.rowsperstrip = tall = _cut_rows(tall, row_bytes, single=tall >= height)
    elif tall * wide * samples * _stored_dtype(page).itemsize > SEGMENT_LIMIT_BYTES:
        raise ScanUnsupportedError(
            f"one compressed segment holds {wide} x {tall} pixels, which must be decoded at once; rewrite it in tiles"
        )
    _check_extents(page, offsets, counts, file_bytes)
    grid = -(-height // tall), -(-width // wide)
    return _Layout((height, width), (tall, wide), grid, planes, offsets, counts, row_bytes, stored_rows)


def _cut_rows(stored_rows: int, row_bytes: int, *, single: bool) -> int:
    """Rows per segment: about `_CUT_BYTES`, and dividing each strip evenly so that the segments form one grid."""
    most = max(1, min(stored_rows, _CUT_BYTES // max(1, row_bytes)))
    if single:
        return most
    return next(rows for rows in range(most, 0, -1) if stored_rows % rows == 0)


def _check_extents(
    page: tifffile.TiffPage, offsets: NDArray[np.int64], counts: NDArray[np.int64], file_bytes: int
) -> None:
    # A GeoTIFF may leave out tiles that hold nothing. In any other file a missing segment is one never written.
    sparse = page.compression != 1 or page.is_tiled
    sparse = sparse and any(tag in page.tags for tag in (34735, 42112, 42113))
    if not sparse and (missing := int((counts <= 0).sum())):
        raise ScanUnreadableError(f"{missing} of {counts.size} strips or tiles were never written; scan or copy again")
    outside = (counts < 0) | (offsets < 0) | (offsets > file_bytes) | (counts > file_bytes - offsets)
    if outside.any():
        raise ScanUnreadableError(
            f"cut off: {int(outside.sum())} of {counts.size} strips or tiles lie beyond the {file_bytes} bytes of the "
            "file; copy it again from its source"
        )


def _check_jpeg_size(data: bytes, size_yx: tuple[int, int], where: str) -> None:
    """The stream inside a segment declares its own size, which the decoder would believe."""
    try:
        _, height, width, _ = tifffile.tifffile.jpeg_shape(data[:4096])
    except Exception:
        return  # tables only, or not within these bytes: the decoder tells
    if height * width > 4 * max(size_yx[0] * size_yx[1], 4096):
        raise ScanUnreadableError(f"damaged: {where} claims {width} x {height} pixels; restore it from its source")


def _compression_name(page: tifffile.TiffPage) -> str:
    try:
        return str(tifffile.COMPRESSION(page.compression).name).lower()
    except ValueError:
        return str(int(page.compression))


def _metadata_of(page: tifffile.TiffPage, dropped: tuple[str, ...]) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "format": "BigTIFF" if page.parent.is_bigtiff else "TIFF",
        "compression": _compression_name(page),
    }
    pair = [_ratio(page.tags.valueof(tag)) for tag in (282, 283)]
    if all(pair):
        unit = page.tags.valueof(296, default=2)
        metadata["resolution"] = [*pair, {2: "inch", 3: "cm"}.get(unit if isinstance(unit, int) else 1, "none")]
    orientation = page.tags.valueof(274)
    if isinstance(orientation, int) and 1 <= orientation <= 8:
        metadata["orientation"] = int(orientation)
    if 34675 in page.tags:
        dropped = (*dropped, PROFILE_DROPPED)
    if dropped:
        metadata["dropped"] = list(dropped)
    return metadata


def _ratio(value: object) -> float | None:
    match value:
        case (int(top), int(bottom)) if top > 0 and bottom > 0:
            return top / bottom
        case int(number) | float(number) if 0 < number < float("inf"):
            return float(number)
    return None
