"""Strips and tiles that GDAL decodes and `tifffile` does not: old-style JPEG, and YCbCr with subsampled chroma.

References
----------
TIFF 6.0 specification (Aldus, 1992), sections 21 (YCbCr) and 22 (old-style JPEG); GDAL's GTiff driver ("GTIFF_DIR").
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import tifffile

from pipeline.errors import ScanDamagedError, ScanError, ScanUnreadableError
from pipeline.readers._base import Samples, reason
from pipeline.readers._gdal import Raster
from pipeline.readers._tiff.layout import JPEG_COMPRESSIONS, SEGMENT_LIMIT_BYTES
from pipeline.support import gdal

# Not for other drivers: JPEG 2000's then returns a transform from uninitialized memory.
_OPTIONS = {"GDAL_GEOREF_SOURCES": "INTERNAL"}
_OLD_JPEG, _YCBCR, _GRAY = 6, 6, (0, 1)


def is_for_gdal(page: tifffile.TiffPage) -> bool:
    if page.compression == _OLD_JPEG:
        return not _is_declared_gray(page)  # GDAL decodes old-style JPEG to RGB only
    return page.photometric == _YCBCR and page.compression not in JPEG_COMPRESSIONS and page.bitspersample == 8


def _is_declared_gray(page: tifffile.TiffPage) -> bool:
    return 262 in page.tags and page.photometric in _GRAY and page.samplesperpixel == 1


def environment() -> Any:
    """The context in which to query a dataset of :func:`open_dataset`."""
    return gdal.environment(**_OPTIONS)


def open_dataset(path: Path, offset: int | None = None) -> gdal.Opened:
    """Open the file's first directory, or the one at byte ``offset``."""
    return gdal.Opened(path, "GTiff", prefix="" if offset is None else _prefix(offset), alone=True, **_OPTIONS)


def _prefix(offset: int) -> str:
    return f"GTIFF_DIR:off:{offset}:"


class GdalSegments:
    """One directory of a TIFF as RGB, decoded by blocks. Threads take turns."""

    def __init__(self, path: Path, page: tifffile.TiffPage) -> None:
        self._lock = threading.Lock()
        self._raster = raster = Raster(path, "GTiff", prefix=_prefix(page.offset), **_OPTIONS)
        self._shape_yx = raster.shape_yx
        self.size_yx: tuple[int, int] = raster.ask("block_shapes")[0]
        if self._shape_yx != (page.imagelength, page.imagewidth) or raster.ask("count") < 3:
            self.close()
            raise ScanDamagedError("damaged TIFF: its tags and its decoder disagree; restore it from its source")
        if self.size_yx[0] * self.size_yx[1] * 4 > SEGMENT_LIMIT_BYTES:
            self.close()
            raise ScanUnreadableError(f"declares segments of {self.size_yx[1]} x {self.size_yx[0]} pixels; restore it")

    def decoded(self, row: int, column: int) -> Samples:
        """(h, w, 3) of one block."""
        (height, width), (tall, wide) = self._shape_yx, self.size_yx
        top, left = row * tall, column * wide
        rows, columns = range(top, min(top + tall, height)), range(left, min(left + wide, width))
        try:
            with self._lock:
                return self._raster.read((1, 2, 3), rows, columns)
        except (MemoryError, ScanError):
            raise
        except Exception as error:  # GDAL's message begins with the file's name and ends with the cause
            raise ScanDamagedError(
                f"damaged: segment at row {top}, column {left} ({reason(error).split(': ')[-1]}); "
                "restore it from its source"
            ) from error

    def close(self) -> None:
        with self._lock:
            self._raster.close()
