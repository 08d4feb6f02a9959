"""One open GDAL file, for every reader built on GDAL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanDamagedError
from pipeline.readers._base import check_drive, reason, refuse_drive_errors
from pipeline.support import gdal

_OPTIONS = {
    # libjpeg fills missing data with gray and only warns.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    # Its fast path for small PNGs returns uninitialized memory if the drive fails.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    # The readers have their own, larger limits for what must be decoded at once.
    "GDAL_ALLOW_LARGE_LIBJPEG_MEM_ALLOC": "YES",
}


class Raster:
    """One open file; not safe to use from several threads at once.

    Parameters
    ----------
    prefix : prefix of GDAL's name for a part of the file
    ending : as in :class:`pipeline.support.gdal.Opened`
    options : GDAL's configuration options

    Raises
    ------
    ScanUnreadableError
        The driver cannot open it.
    """

    def __init__(self, path: Path, driver: str, *, prefix: str = "", ending: str = "", **options: str) -> None:
        self._ending = ending
        self._path, self._driver, self._prefix, self._options = path, driver, prefix, {**_OPTIONS, **options}
        self._opened = self._open()
        self._failed = False

    def _open(self) -> gdal.Opened:
        try:
            return gdal.Opened(
                self._path, self._driver, prefix=self._prefix, alone=True, ending=self._ending, **self._options
            )
        except Exception as error:
            refuse_drive_errors(error)
            check_drive(self._path)
            raise ScanDamagedError(f"damaged {self._driver} ({reason(error)}); restore it from its source") from error

    @property
    def _dataset(self) -> Any:
        """The dataset, reopened after an error: some drivers would continue where they failed and return wrong rows."""
        if self._failed:
            opened = self._open()
            self._opened.close()
            self._opened, self._failed = opened, False
        return self._opened.dataset

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self._opened.dataset.height, self._opened.dataset.width

    def ask(self, name: str, *arguments: Any, **named: Any) -> Any:
        """An attribute of the dataset, called with the arguments if there are any."""
        with gdal.environment(**self._options):
            found = getattr(self._opened.dataset, name)
            return found(*arguments, **named) if arguments or named else found

    def read(self, bands: tuple[int, ...], rows: range, columns: range, *, mask: bool = False) -> NDArray:
        """(h, w, bands) samples; with ``mask``, GDAL's own mask of the picture (0 or 255) as an additional band."""
        window = gdal.Window(columns.start, rows.start, len(columns), len(rows))
        dataset = self._dataset
        try:
            with gdal.environment(**self._options):
                planes = dataset.read(list(bands), window=window)
                if mask:
                    opacity = dataset.read_masks(1, window=window)[None].astype(planes.dtype)
                    planes = np.concatenate([planes, opacity])
        except Exception as error:
            self._failed = True
            refuse_drive_errors(error)
            check_drive(self._path, rows.start / dataset.height)
            raise
        return np.ascontiguousarray(np.moveaxis(planes, 0, 2))

    def close(self) -> None:
        self._opened.close()
