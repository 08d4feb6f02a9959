"""Strips and tiles that `tifffile` does not decode but GDAL does: old-style JPEG, and YCbCr with fewer chroma samples.

References
----------
TIFF 6.0 specification (Aldus, 1992), sections 21 (YCbCr) and 22 (old-style JPEG); GDAL's GTiff driver ("GTIFF_DIR").
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from rasterio.windows import Window

from .. import gdal
from ..errors import ScanUnreadableError
from ._tiff_layout import JPEG_COMPRESSIONS, SEGMENT_LIMIT_BYTES
from ._window import Samples, check_drive, reason, refuse_drive_errors

# Not of other drivers: the one of JPEG 2000 then gives a transform of whatever lies in memory.
_OPTIONS = {"GDAL_GEOREF_SOURCES": "INTERNAL"}
_OLD_JPEG, _YCBCR = 6, 6


def is_for_gdal(page: tifffile.TiffPage) -> bool:
    if page.compression == _OLD_JPEG:
        return True
    return page.photometric == _YCBCR and page.compression not in JPEG_COMPRESSIONS and page.bitspersample == 8


def environment() -> Any:
    """The context in which to ask an open dataset of :func:`open_dataset`."""
    return gdal.environment(**_OPTIONS)


def open_dataset(path: Path, offset: int | None = None) -> gdal.Opened:
    """The file's first directory, or the one at that byte."""
    return gdal.Opened(path, "GTiff", prefix="" if offset is None else f"GTIFF_DIR:off:{offset}:", **_OPTIONS)


class GdalSegments:
    """One directory of a TIFF as RGB, by blocks. Threads take turns."""

    def __init__(self, path: Path, page: tifffile.TiffPage) -> None:
        self._lock = threading.Lock()
        self._path = path
        try:
            self._opened = open_dataset(path, page.offset)
        except Exception as error:
            refuse_drive_errors(error)
            check_drive(path)
            raise ScanUnreadableError(f"damaged TIFF ({reason(error)}); restore it from its source") from error
        self._dataset = self._opened.dataset
        self.size_yx: tuple[int, int] = self._dataset.block_shapes[0]
        shape_yx = self._dataset.shape
        if shape_yx != (page.imagelength, page.imagewidth) or self._dataset.count < 3:
            self.close()
            raise ScanUnreadableError("damaged TIFF: its tags and its decoder disagree; restore it from its source")
        if self.size_yx[0] * self.size_yx[1] * 4 > SEGMENT_LIMIT_BYTES:
            self.close()
            raise ScanUnreadableError(f"declares segments of {self.size_yx[1]} x {self.size_yx[0]} pixels; restore it")

    def decoded(self, row: int, column: int) -> Samples:
        """(h, w, 3) of one block."""
        (height, width), (tall, wide) = self._dataset.shape, self.size_yx
        top, left = row * tall, column * wide
        window = Window(left, top, min(wide, width - left), min(tall, height - top))
        try:
            with self._lock, environment():
                planes = self._dataset.read((1, 2, 3), window=window)
        except Exception as error:  # GDAL's words begin with the file's name and end with what happened
            refuse_drive_errors(error)
            check_drive(self._path, top / height)
            raise ScanUnreadableError(
                f"damaged: segment at row {top}, column {left} ({reason(error).split(': ')[-1]}); "
                "restore it from its source"
            ) from error
        return np.ascontiguousarray(np.moveaxis(planes, 0, 2))

    def close(self) -> None:
        with self._lock:
            self._opened.close()
