"""The only way to use GDAL here: one set of options, no network, one lock around process-wide state.

The driver is always named, so that no other can open a file. GDAL looks for no sidecar files and fetches nothing from
the network, whatever a file says.

References
----------
GDAL configuration options (gdal.org/user/configoptions.html): PAM, directory listing, VSI and HTTP.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_OutOfMemoryError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.io import MemoryFile
from rasterio.windows import Window

from pipeline.support.files import check_regular

__all__ = [
    "CACHE_BYTES",
    "CRS",
    "OPTIONS",
    "CPLE_OutOfMemoryError",
    "Opened",
    "Window",
    "cache_for",
    "environment",
    "quiet",
    "read_smaller",
    "read_window",
]

CACHE_BYTES = 16 * 2**20
"""GDAL's cache of decoded blocks for all files together, unless one of them has larger blocks."""
_MOST_CACHE_BYTES = 2**28
# GDAL's default is a twentieth of the machine's memory. The limit holds for the process, not for a thread.
os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_BYTES // 2**20))
_RAISING = threading.Lock()

OPTIONS = {
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # A second barrier, in case a driver follows a name in a file: nothing is fetched.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "{none}",
    "GDAL_HTTP_PROXY": "127.0.0.1:1",
    "GDAL_HTTPS_PROXY": "127.0.0.1:1",
    "GDAL_HTTP_MAX_RETRY": "0",
    "GDAL_HTTP_CONNECTTIMEOUT": "1",
}
_OPEN_FILES = Path("/proc/self/fd")
# Filters of `warnings` and hooks of `sys` are process-wide; only one thread at a time may replace them.
_GLOBAL_LOCK = threading.Lock()
# GDAL's messages also arrive as exceptions; if logged, they would reach the user twice.
logging.getLogger("rasterio").setLevel(logging.CRITICAL + 1)


def environment(**more: Any) -> Any:
    """A context with `OPTIONS` and ``more`` GDAL configuration options."""
    return rasterio.Env(**{**OPTIONS, **more})


def cache_for(block_bytes: int) -> int:
    """Enlarge GDAL's cache for a block of ``block_bytes``, with all its bands. Returns the cache's size in bytes.

    Otherwise a driver that decodes all bands of a block at once would decode the block again for each band.
    """
    wanted = min(max(CACHE_BYTES, block_bytes * 5 // 4), _MOST_CACHE_BYTES)
    with _RAISING:  # never lowered: another thread may be reading large blocks too
        if get_gdal_config("GDAL_CACHEMAX") < wanted:
            set_gdal_config("GDAL_CACHEMAX", wanted)
    return wanted


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress NotGeoreferencedWarning, because most scans have no georeference, and rasterio's printed complaints
    about GDAL messages that are not UTF-8 because they quote a file's bytes."""
    with _GLOBAL_LOCK, warnings.catch_warnings():
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


class Opened:
    """An open dataset, which must be closed; as a context manager it returns the dataset itself.

    Parameters
    ----------
    path : a file; its name may be any bytes
    driver : the only driver that may open it
    mode : "r" or "r+"
    prefix : prefix of GDAL's name for a part of the file, such as "GTIFF_DIR:off:8:"
    alone : hide the file's name and folder from the driver: those of BMP, PNM, SGI and HFA open neighbours whatever
        `OPTIONS` say
    ending : bytes to append to those of the file, as Latin-1 text
    options : further configuration options while opening

    Raises
    ------
    OSError, rasterio.errors.RasterioError : from the system or rasterio
    """

    def __init__(
        self,
        path: Path,
        driver: str,
        mode: str = "r",
        *,
        prefix: str = "",
        alone: bool = False,
        ending: str = "",
        **options: Any,
    ) -> None:
        self._descriptor: int | None = None
        self._extended: tuple[MemoryFile, ...] = ()
        check_regular(path)
        name = str(path.absolute())
        numbered = _OPEN_FILES.exists()
        if numbered and (alone or ending or not _is_utf8(name)):
            # GDAL accepts only UTF-8 names, and a descriptor's path has no neighbours. Drivers open a file more than
            # once, so the descriptor stays open as long as the dataset.
            self._descriptor = os.open(path, os.O_RDWR if mode == "r+" else os.O_RDONLY)
            name = str(_OPEN_FILES / str(self._descriptor))
        try:
            with quiet(), environment(**options):
                # For systems without descriptor paths. It does not work for a single TIFF directory, whose driver then
                # sees the file's name.
                if ending or (alone and not numbered and not prefix):
                    self._extended = _extended(name, path.stat().st_size, ending.encode("latin-1"))
                    name = f"/vsisparse/{self._extended[-1].name}"
                self.dataset: Any = rasterio.open(prefix + name, mode, driver=driver, sharing=False)
        except BaseException:
            self._release()
            raise

    def close(self) -> None:
        try:
            self.dataset.close()
        finally:
            self._release()

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        for part in self._extended:
            part.close()
        self._extended = ()

    def __enter__(self) -> Any:
        return self.dataset

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_smaller(path: Path, driver: str, shape_yx: tuple[int, int]) -> NDArray:
    """(h, w, 3) means of the first three bands of a picture, at ``shape_yx`` pixels, from its smaller copies if any.

    Raises
    ------
    OSError, rasterio.errors.RasterioError : as :class:`Opened`; IndexError : it has fewer bands.
    """
    with Opened(path, driver, alone=True) as dataset, environment():
        samples = dataset.read((1, 2, 3), out_shape=(3, *shape_yx), resampling=Resampling.average)
        return np.asarray(samples).transpose(1, 2, 0)


def read_window(dataset: Any, factor: int, rows: slice, columns: slice) -> NDArray:
    """(h, w, 3) samples of a window of the first three bands reduced by ``factor``, from the smaller copies if any.

    ``rows`` and ``columns`` are those of the reduced picture. Raises rasterio.errors.RasterioError.
    """
    y0, x0 = rows.start * factor, columns.start * factor
    y1, x1 = min(rows.stop * factor, dataset.height), min(columns.stop * factor, dataset.width)
    shape = (3, rows.stop - rows.start, columns.stop - columns.start)
    with environment():
        window = Window(x0, y0, x1 - x0, y1 - y0)
        samples = dataset.read((1, 2, 3), window=window, out_shape=shape, resampling=Resampling.average)
        return np.asarray(samples).transpose(1, 2, 0)


def _extended(name: str, size: int, ending: bytes) -> tuple[MemoryFile, ...]:
    """Two files in memory: the ending, and the list of parts (GDAL's /vsisparse/) that appends it to the file."""
    last = MemoryFile(ending)
    parts = [(name, 0, size)] + [(last.name, size, len(ending))] * bool(ending)
    regions = "".join(
        f'<SubfileRegion><Filename relative="0">{escape(of)}</Filename><DestinationOffset>{at}</DestinationOffset>'
        f"<SourceOffset>0</SourceOffset><RegionLength>{length}</RegionLength></SubfileRegion>"
        for of, at, length in parts
    )
    whole = f"<VSISparseFile><Length>{size + len(ending)}</Length>{regions}</VSISparseFile>"
    return last, MemoryFile(whole.encode())


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
