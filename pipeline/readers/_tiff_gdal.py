"""Strips and tiles that `tifffile` does not decode but GDAL does: old-style JPEG, and YCbCr with fewer chroma samples.

Only GDAL's GTiff driver may open the file, and no file beside it is looked for.

References
----------
TIFF 6.0 specification (Aldus, 1992), sections 21 (YCbCr) and 22 (old-style JPEG); GDAL's GTiff driver ("GTIFF_DIR").
"""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import numpy as np
import rasterio
import tifffile
from rasterio.windows import Window

from ..errors import ScanUnreadableError
from ._tiff_layout import JPEG_COMPRESSIONS, SEGMENT_LIMIT_BYTES
from ._window import Samples, reason

GDAL_OPTIONS = {
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_GEOREF_SOURCES": "INTERNAL",
}
# Filters of `warnings` are global to the process; one thread at a time may exchange them.
_WARNINGS_LOCK = threading.Lock()
_OLD_JPEG, _YCBCR = 6, 6


def is_for_gdal(page: tifffile.TiffPage) -> bool:
    if page.compression == _OLD_JPEG:
        return True
    return page.photometric == _YCBCR and page.compression not in JPEG_COMPRESSIONS and page.bitspersample == 8


def open_dataset(path: Path, offset: int | None = None) -> rasterio.DatasetReader:
    """The file's first directory, or the one at that byte."""
    name = path.absolute() if offset is None else f"GTIFF_DIR:off:{offset}:{path.absolute()}"
    with _WARNINGS_LOCK, warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
        warnings.simplefilter("ignore")  # NotGeoreferencedWarning: a scan has no place on Earth
        return rasterio.open(name, driver="GTiff")


class GdalSegments:
    """One directory of a TIFF as RGB, by blocks. Threads take turns."""

    def __init__(self, path: Path, page: tifffile.TiffPage) -> None:
        self._lock = threading.Lock()
        try:
            self._dataset = open_dataset(path, page.offset)
        except Exception as error:
            raise ScanUnreadableError(f"damaged TIFF ({reason(error)}); restore it from its source") from error
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
            with self._lock, rasterio.Env(**GDAL_OPTIONS):
                planes = self._dataset.read((1, 2, 3), window=window)
        except Exception as error:  # GDAL's words begin with the file's name and end with what happened
            raise ScanUnreadableError(
                f"damaged: segment at row {top}, column {left} ({reason(error).split(': ')[-1]}); "
                "restore it from its source"
            ) from error
        return np.ascontiguousarray(np.moveaxis(planes, 0, 2))

    def close(self) -> None:
        with self._lock:
            self._dataset.close()
