"""GDAL, kept to one driver and one file: what every reader built on it opens with.

The driver is named, so that no other can take the file; no sidecar file is looked for, and nothing is fetched from the
network whatever a header says.

References
----------
GDAL configuration options (gdal.org/user/configoptions.html): PAM, directory listing, VSI and HTTP.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from ..errors import ScanUnreadableError
from ._window import reason

_OPTIONS = {
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # libjpeg fills what is missing with gray and only warns.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    # The readers have their own, larger bounds for what must be decoded at once.
    "GDAL_ALLOW_LARGE_LIBJPEG_MEM_ALLOC": "YES",
    # A second fence, should a driver follow a name that it found in a file: nothing is fetched.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "{none}",
    "GDAL_HTTP_PROXY": "127.0.0.1:1",
    "GDAL_HTTPS_PROXY": "127.0.0.1:1",
    "GDAL_HTTP_MAX_RETRY": "0",
    "GDAL_HTTP_CONNECTTIMEOUT": "1",
}
# Filters of `warnings` and the hooks of `sys` are global to the process; one thread at a time may exchange them.
_QUIET_LOCK = threading.Lock()
# GDAL's messages arrive as exceptions too; logged, they would reach the user a second time.
logging.getLogger("rasterio").setLevel(logging.CRITICAL + 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """No NotGeoreferencedWarning, for a scan has no place on Earth; and no word of rasterio on words of GDAL that quote
    a file's bytes and are therefore no UTF-8: it prints those."""
    with _QUIET_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        uncaught, unraisable = sys.excepthook, sys.unraisablehook

        def of_unraisable(found: sys.UnraisableHookArgs) -> None:
            if not isinstance(found.exc_value, UnicodeDecodeError):
                unraisable(found)

        def of_uncaught(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
            if not isinstance(error, UnicodeDecodeError):
                uncaught(kind, error, at)

        sys.excepthook, sys.unraisablehook = of_uncaught, of_unraisable
        try:
            yield
        finally:
            sys.excepthook, sys.unraisablehook = uncaught, unraisable


class Raster:
    """One open file; not safe to use from several threads at once.

    Raises
    ------
    ScanUnreadableError
        The driver cannot open it.
    """

    def __init__(self, path: Path, driver: str, **options: str) -> None:
        self._options = {**_OPTIONS, **options}
        try:
            with _quiet(), rasterio.Env(**self._options):
                self.dataset: Any = rasterio.open(path.absolute(), driver=driver, sharing=False)
        except Exception as error:
            raise ScanUnreadableError(f"damaged {driver} ({reason(error)}); restore it from its source") from error

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.dataset.height, self.dataset.width

    def ask(self, name: str, *arguments: Any, **named: Any) -> Any:
        """An attribute of the dataset, called with the arguments where there are any."""
        with rasterio.Env(**self._options):
            found = getattr(self.dataset, name)
            return found(*arguments, **named) if arguments or named else found

    def read(self, bands: tuple[int, ...], rows: range, columns: range, *, mask: bool = False) -> NDArray:
        """(h, w, bands) samples; with ``mask``, GDAL's own mask of the picture (0 or 255) as one band more."""
        window = Window(columns.start, rows.start, len(columns), len(rows))
        with rasterio.Env(**self._options):
            planes = self.dataset.read(list(bands), window=window)
            if mask:
                planes = np.concatenate([planes, self.dataset.read_masks(1, window=window)[None].astype(planes.dtype)])
        return np.ascontiguousarray(np.moveaxis(planes, 0, 2))

    def close(self) -> None:
        self.dataset.close()
