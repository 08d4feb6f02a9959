"""Positions of the strips or tiles of a TIFF's picture, checked before any of them is read.

Uncompressed strips are cut into shorter ones, because many writers store a whole gigapixel picture as a single strip.
Rows of uncompressed data start at known bytes, so only the rows of the window need to be read. A *compressed* strip can
only be decoded as a whole; beyond `SEGMENT_LIMIT_BYTES` it is refused.

References
----------
TIFF 6.0 specification (Aldus, 1992), sections 3 and 15; OGC GeoTIFF 1.1; GDAL's GTiff driver on sparse files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.errors import ScanDamagedError, ScanUnreadableError, ScanUnsupportedError
from pipeline.readers._base import REWRITE

SEGMENT_LIMIT_BYTES = 2**30
UNPLANNED_LIMIT_BYTES = 2**29  # for decoding before a memory limit is known: to find the range of samples
CUT_BYTES = 4 * 2**20  # uncompressed strips are cut to about this
SALVAGE_CUT_BYTES = 2**16  # and in salvage to this, because any row may be the last
_MAX_SEGMENTS = 2**26
_MAX_UNLISTED = 2**16  # segments of a damaged list, most of which may be missing
_GEOTIFF_TAGS = (33550, 33922, 34264, 34735, 42112, 42113)
_COUNT_TAGS = (279, 325, 514)
JPEG_COMPRESSIONS = frozenset({6, 7, 33007, 34892})


@dataclass(frozen=True)
class Layout:
    """Position of each segment, in the picture and in the file.

    ``byte_offsets`` and ``byte_counts`` are those of the file's own segments. ``row_bytes`` is None for segments that
    decode only as a whole; else the ``stored_rows`` rows of each are cut into segments of ``size_yx[0]`` rows.
    ``sparse`` says that the file leaves out some segments because they are empty.
    """

    shape_yx: tuple[int, int]
    size_yx: tuple[int, int]
    grid_yx: tuple[int, int]
    planes: int
    byte_offsets: NDArray[np.int64]
    byte_counts: NDArray[np.int64]
    row_bytes: int | None
    stored_rows: int
    sparse: bool

    def index(self, plane: int, row: int, column: int) -> int:
        return (plane * self.grid_yx[0] + row) * self.grid_yx[1] + column

    def covered_yx(self, row: int, column: int) -> tuple[int, int]:
        """Rows and columns of the picture that a segment holds; the last ones are partial."""
        (height, width), (tall, wide) = self.shape_yx, self.size_yx
        return min(tall, height - row * tall), min(wide, width - column * wide)

    def stored_index(self, plane: int, row: int, column: int) -> int:
        """Index of the file's own segment that contains a segment."""
        if self.row_bytes is None:
            return self.index(plane, row, column)
        strips = -(-self.shape_yx[0] // self.stored_rows)
        return plane * strips + row * self.size_yx[0] // self.stored_rows

    def extent(self, plane: int, row: int, column: int) -> tuple[int, int]:
        """First byte and number of bytes of a segment; 0 bytes if the file does not hold it."""
        at = self.stored_index(plane, row, column)
        offset, count = int(self.byte_offsets[at]), int(self.byte_counts[at])
        if self.row_bytes is None or count == 0:
            return offset, count
        above = row * self.size_yx[0] % self.stored_rows
        return offset + above * self.row_bytes, self.covered_yx(row, column)[0] * self.row_bytes


def stored_dtype(page: tifffile.TiffPage) -> np.dtype:
    """Data type of the samples as they are decoded."""
    dtype = np.dtype(page.dtype)
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype


def layout_of(page: tifffile.TiffPage, file_bytes: int, channels: tuple[int, ...], *, salvage: bool = False) -> Layout:
    """The layout, if every segment of these channels lies inside the file and is small enough to decode.

    With ``salvage``, segments outside the file are accepted; reading them reports damage.
    """
    check_compression(page)
    height, width = page.imagelength, page.imagewidth
    planes = page.samplesperpixel if page.planarconfig == 2 and page.samplesperpixel > 1 else 1
    samples = page.samplesperpixel if planes == 1 else 1
    if not page.is_tiled and page.rowsperstrip == 0:  # some writers mean "all rows", for which 2^32 - 1 is defined
        page.rowsperstrip = height
    tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
    if tall < 1 or wide < 1 or (page.is_tiled and page.tiledepth != 1):
        raise ScanUnreadableError(f"declares segments of {wide} x {tall} pixels; restore it from its source")
    stored_rows, row_bytes = tall, None
    offsets, counts = _listed(page, -(-height // tall) * -(-width // wide) * planes, salvage=salvage)
    empty = (offsets == 0) & (counts == 0)
    sparse = _may_be_sparse(page, empty)
    if page.compression != 1:
        counts = _counted(offsets, counts, file_bytes)
    elif page.is_tiled:
        tile_bytes = tall * -(-wide * samples * page.bitspersample // 8)
        counts = np.where((counts == 0) & ~empty, tile_bytes, counts)
    elif page.predictor == 1:
        row_bytes = -(-width * samples * page.bitspersample // 8)
        # Many writers leave wrong or zero byte counts on uncompressed strips; compute them from the geometry.
        rows = np.minimum(tall, height - np.arange(counts.size // planes) * tall)
        counts = np.where((counts > 0) | ~empty, np.tile(rows * row_bytes, planes), 0)
        page.rowsperstrip = tall = _cut_rows(
            tall, (SALVAGE_CUT_BYTES if salvage else CUT_BYTES) // row_bytes, single=tall >= height
        )
    if row_bytes is None and tall * wide * samples * stored_dtype(page).itemsize > SEGMENT_LIMIT_BYTES:
        raise ScanUnsupportedError(
            f"one segment holds {wide} x {tall} pixels, which must be decoded at once; rewrite it in tiles"
        )
    if not salvage:
        read = np.zeros(planes, bool)
        read[[channel for channel in channels if channel < planes] or [0]] = True
        read = np.repeat(read, counts.size // planes)
        _check_extents(offsets[read], counts[read], file_bytes, sparse=sparse)
    grid = -(-height // tall), -(-width // wide)
    missing = sparse and bool((counts == 0).any())
    return Layout((height, width), (tall, wide), grid, planes, offsets, counts, row_bytes, stored_rows, missing)


def check_compression(page: tifffile.TiffPage) -> None:
    if page.compression == 1:
        return
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
    except KeyError:
        raise ScanUnsupportedError(f"compression {compression_name(page)}, which is not handled; {REWRITE}") from None


def compression_name(page: tifffile.TiffPage) -> str:
    try:
        return str(tifffile.COMPRESSION(page.compression).name).lower()
    except ValueError:
        return str(int(page.compression))


def _listed(page: tifffile.TiffPage, segments: int, *, salvage: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets and byte counts of ``segments`` segments, as the file lists them."""
    listed = page.databytecounts
    if not any(tag in page.tags for tag in _COUNT_TAGS):  # tifffile makes a list up
        listed = (0,) * len(page.dataoffsets)
    found = min(len(page.dataoffsets), len(listed))
    if segments > _MAX_SEGMENTS or (found < segments and not (salvage and found and segments <= _MAX_UNLISTED)):
        raise ScanUnreadableError(f"lists {found} of its {segments} strips or tiles; copy it again from its source")
    offsets, counts = np.zeros(segments, np.int64), np.zeros(segments, np.int64)
    offsets[:found] = page.dataoffsets[:segments][:found]
    counts[:found] = listed[:segments][:found]
    return offsets, counts


def _may_be_sparse(page: tifffile.TiffPage, empty: NDArray[np.bool_]) -> bool:
    """True if segments without offset and size are left out because they are empty, as by GDAL's SPARSE_OK.

    A GeoTIFF may leave out any segments, and any file some of its tiles. Missing strips of other files, or a file
    without any tile, come from a program that did not finish.
    """
    return any(tag in page.tags for tag in _GEOTIFF_TAGS) or (page.is_tiled and not bool(empty.all()))


def _counted(offsets: NDArray[np.int64], counts: NDArray[np.int64], file_bytes: int) -> NDArray[np.int64]:
    """Byte counts that a file lists. If it lists none, each segment extends to the next one or to the end of the file,
    as in libtiff; decoders ignore bytes after the coded data."""
    if counts.any() or not offsets.all():
        return counts
    places = np.append(np.unique(offsets), max(file_bytes, int(offsets.max())))
    gaps: NDArray[np.int64] = places[np.searchsorted(places, offsets, side="right").clip(max=places.size - 1)] - offsets
    return gaps


def _cut_rows(stored_rows: int, limit: int, *, single: bool) -> int:
    """Rows per segment: at most the limit, and an even division of each strip, so that the segments form one grid."""
    most = max(1, min(stored_rows, limit))
    if single:
        return most
    return next(rows for rows in range(most, 0, -1) if stored_rows % rows == 0)


def _check_extents(offsets: NDArray[np.int64], counts: NDArray[np.int64], file_bytes: int, *, sparse: bool) -> None:
    # A GeoTIFF may leave out empty tiles. In any other file a missing segment was never written.
    if not sparse and (missing := int((counts <= 0).sum())):
        raise ScanUnreadableError(f"{missing} of {counts.size} strips or tiles were never written; scan or copy again")
    outside = (counts < 0) | (offsets < 0) | (offsets > file_bytes) | (counts > file_bytes - offsets)
    if outside.any():
        raise ScanDamagedError(
            f"cut off: {int(outside.sum())} of {counts.size} strips or tiles lie beyond the {file_bytes} bytes of the "
            "file; copy it again from its source"
        )
