"""Open a scan of any handled kind. The kind is recognized by a file's first bytes; its ending is never trusted.

    format                                  module     how lightness is taken
    TIFF, BigTIFF                           tiff       see there
    JPEG, PNG                               image      sRGB, or L* through the ICC profile or PNG's gAMA; CMYK through
                                                       its profile, else as (1 - C)(1 - K) and so on
    JPEG 2000, WebP, GIF, BMP, PNM, SGI,    raster     sRGB, or L* through the ICC profile; samples that are neither
    NITF, Erdas Imagine                                8 nor 16 bits stretched linearly
    JPEG XL, AVIF, JPEG-LS, BMP of later    codec      as raster; JPEG XL by its own transfer function too
    versions
    PBM, text PGM and PPM                   bitmap     black and white; sRGB
    PCX                                     pcx        sRGB
    OME-Zarr 0.4 and 0.5 (a folder)         omezarr    as raster

A reader is one module of this package. It offers ``recognizes(head)`` (given a file's first bytes) and
``open_reader(path, reading)``; also ``page_count(path, reading)`` if a file may hold several pictures. A reader of
folders offers ``recognizes_folder(path)`` instead of the first, or in addition. A new module with these names is a new
reader; the endings that a search through folders takes are in :mod:`pipeline.endings`. Modules with a leading
underscore are shared by the readers.

A world file beside a scan is read; other neighbours are only named (`_sidecar_files`).
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import stat
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pipeline.errors import ScanError, ScanNotFoundError, ScanUnreadableError, ScanUnsupportedError, UsageError
from pipeline.readers._base import refuse_drive_errors
from pipeline.readers._lightness import keeping_colours
from pipeline.readers._sidecar_files import with_neighbours
from pipeline.support.names import shown
from pipeline.types import ReadOptions, ScanReader

__all__ = [
    "READERS",
    "is_folder_scan",
    "keeping_colours",
    "open_scan",
    "page_count",
]

_HEAD_BYTES = 128

READERS: tuple[ModuleType, ...] = tuple(
    importlib.import_module(f"{__name__}.{found.name}")
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda found: found.name)
    if not found.name.startswith("_")
)

_KNOWN_BUT_UNHANDLED = (
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"\x01\xda", "SGI (of a kind other than 8-bit gray or RGB)"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"PCIDSK", "PCIDSK"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"msid", "MrSID"),
    (4, b"ftyp", "HEIF or video"),
    (0, b"P7", "PAM"),
)


def open_scan(path: Path, reading: ReadOptions | None = None) -> ScanReader:
    """Open the scan at ``path``. The reader is also a context manager.

    Nothing is decoded yet, unless the format decodes only as a whole (`codec`) or samples need stretching.

    Raises
    ------
    ScanNotFoundError, ScanUnreadableError, ScanUnreachableError, ScanUnsupportedError
    UsageError : ``reading.limit_pixels`` is below one.
    """
    reading = reading or ReadOptions()
    if reading.limit_pixels < 1:
        raise UsageError(f"limit_pixels is {reading.limit_pixels}: no scan could be opened; give at least 1")
    path = Path(path)
    with _named(path) as name:
        opened: ScanReader = _reader_of(path, name).open_reader(path, reading)
        try:
            return opened if path.is_dir() else with_neighbours(opened, path, reading)
        except BaseException:
            opened.close()
            raise


def is_folder_scan(path: Path) -> bool:
    """True if a reader recognizes the folder as a scan."""
    return any(reader.recognizes_folder(path) for reader in READERS if hasattr(reader, "recognizes_folder"))


def page_count(path: Path, reading: ReadOptions | None = None) -> int:
    """Number of pictures in the file, without reduced copies and masks. Raises as :func:`open_scan`.

    If the file is cut off: with ``reading.salvage``, the number that can be reached; without, an error.
    """
    path = Path(path)
    with _named(path) as name:
        count = getattr(_reader_of(path, name), "page_count", None)
        return int(count(path, reading or ReadOptions())) if count else 1


@contextlib.contextmanager
def _named(path: Path) -> Iterator[str]:
    """The path as messages show it; prefixes the readers' errors with it."""
    name = shown(path)
    try:
        try:
            yield name
        except Exception as error:
            if not isinstance(error, ScanError):
                refuse_drive_errors(error)
            raise
    except ScanError as error:
        if str(error).startswith(f"{name}: "):
            raise
        # A raise-from chain keeps the library's own words for a debugger; the message stays ours.
        raise type(error)(f"{name}: {error}") from error.__cause__


def _reader_of(path: Path, name: str) -> ModuleType:
    head = _read_head(path, name)
    if head is None:
        for reader in READERS:
            if hasattr(reader, "recognizes_folder") and reader.recognizes_folder(path):
                return reader
        raise ScanNotFoundError(f"{name}: a folder, not a scan; name a file inside it")
    for reader in READERS:
        if hasattr(reader, "recognizes") and reader.recognizes(head):
            return reader
    for at, magic, kind in _KNOWN_BUT_UNHANDLED:
        if head[at : at + len(magic)] == magic:
            raise ScanUnsupportedError(f"{name}: a {kind} file, which is not handled; convert it to TIFF, PNG or JPEG")
    raise ScanUnreadableError(
        f"{name}: not an image (no signature of TIFF, PNG, JPEG or another handled format); remove it from the request"
    )


def _read_head(path: Path, name: str) -> bytes | None:
    """The first bytes of a file; None for a folder."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return None
        if not stat.S_ISREG(status.st_mode):
            raise ScanNotFoundError(f"{name}: not a regular file; copy the scan to a file first")
        if status.st_size == 0:
            raise ScanUnreadableError(f"{name}: the file is empty (0 bytes); restore it from its source")
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except ScanError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ScanNotFoundError(f"{name}: no such file; check the path") from error
    except ValueError as error:  # a NUL in the path
        raise ScanNotFoundError(f"{name}: not a possible file name; check the path") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ScanUnreadableError(f"{name}: cannot be opened ({reason}); check its permissions and disk") from error
