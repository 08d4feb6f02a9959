"""GDAL, the same way everywhere: one set of options, one fence to the network, one lock around what is global.

The driver is always named, so that no other can take a file; no sidecar file is looked for, and nothing is fetched
from the network whatever a file says.

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
]

CACHE_BYTES = 16 * 2**20
"""What GDAL keeps of decoded blocks, of all files together, where none of them has larger ones."""
_MOST_CACHE_BYTES = 2**28
# By itself it keeps a twentieth of the machine's memory. The limit is the process's and not a thread's.
os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_BYTES // 2**20))
_RAISING = threading.Lock()

OPTIONS = {
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # A second fence, should a driver follow a name that it found in a file: nothing is fetched.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "{none}",
    "GDAL_HTTP_PROXY": "127.0.0.1:1",
    "GDAL_HTTPS_PROXY": "127.0.0.1:1",
    "GDAL_HTTP_MAX_RETRY": "0",
    "GDAL_HTTP_CONNECTTIMEOUT": "1",
}
_OPEN_FILES = Path("/proc/self/fd")
# Filters of `warnings` and the hooks of `sys` are global to the process; one thread at a time may exchange them.
_GLOBAL_LOCK = threading.Lock()
# GDAL's messages arrive as exceptions too; logged, they would reach the user a second time.
logging.getLogger("rasterio").setLevel(logging.CRITICAL + 1)


def environment(**more: Any) -> Any:
    """A context with `OPTIONS` and ``more`` of GDAL's configuration options."""
    return rasterio.Env(**{**OPTIONS, **more})


def cache_for(block_bytes: int) -> int:
    """Let GDAL keep a block of that size, with all its bands; the bytes that it keeps then.

    A driver that decodes all bands of a block at once would otherwise do it again for each of them.
    """
    wanted = min(max(CACHE_BYTES, block_bytes * 5 // 4), _MOST_CACHE_BYTES)
    with _RAISING:  # never lowered: another thread may be reading such blocks, too
        if get_gdal_config("GDAL_CACHEMAX") < wanted:
            set_gdal_config("GDAL_CACHEMAX", wanted)
    return wanted


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No NotGeoreferencedWarning, for a scan has no place on Earth; and no word of rasterio on words of GDAL that quote
    a file's bytes and are therefore no UTF-8: it prints those."""
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
    """An open dataset, to be closed; as a context manager it gives the dataset itself.

    Parameters
    ----------
    path : a file; its name may be of any bytes
    driver : the only one that may open it
    mode : "r" or "r+"
    prefix : of GDAL's name for a part of the file, such as "GTIFF_DIR:off:8:"
    alone : let the driver know nothing of the file's name and folder: some, of BMP, PNM, SGI and HFA, open neighbours
        whatever `OPTIONS` say
    ending : bytes to read behind those of the file as if they were there, a letter of Latin-1 for each
    options : further configuration options, for the opening

    Raises
    ------
    OSError, rasterio.errors.RasterioError : as rasterio, or the system, has it
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
            # GDAL takes names in UTF-8 only, and beside a number lies nothing. Drivers open a file more than once, so
            # this stays open as long as they do.
            self._descriptor = os.open(path, os.O_RDWR if mode == "r+" else os.O_RDONLY)
            name = str(_OPEN_FILES / str(self._descriptor))
        try:
            with quiet(), environment(**options):
                # Where files have no numbers. A directory of a TIFF cannot be asked of a part: that is not alone there.
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
    """(h, w, 3) means of the first three bands of a picture, of ``shape_yx`` pixels, from its smaller copies if it can.

    Raises
    ------
    OSError, rasterio.errors.RasterioError : as :class:`Opened`; IndexError : it has fewer bands.
    """
    with Opened(path, driver, alone=True) as dataset, environment():
        samples = dataset.read((1, 2, 3), out_shape=(3, *shape_yx), resampling=Resampling.average)
        return np.asarray(samples).transpose(1, 2, 0)


def _extended(name: str, size: int, ending: bytes) -> tuple[MemoryFile, ...]:
    """The ending, and the list of parts (GDAL's /vsisparse/) that puts it behind the file, both in memory."""
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
