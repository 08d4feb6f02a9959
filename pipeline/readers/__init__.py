"""Open a scan of any handled kind. The kind is told by the file's first bytes; its ending is never trusted.

A reader is one module of this package. It offers ``ENDINGS`` (lower-case file endings), ``recognizes(head)`` and
``open_reader(path, limit_pixels)``; a new file with these three names is a new reader.
"""

from __future__ import annotations

import importlib
import pkgutil
import stat
from pathlib import Path
from types import ModuleType

from ..errors import ScanError, ScanNotFoundError, ScanUnreadableError, ScanUnsupportedError, UsageError
from ..types import ScanReader

DEFAULT_LIMIT_PIXELS = 20_000_000_000
_HEAD_BYTES = 32

READERS: tuple[ModuleType, ...] = tuple(
    importlib.import_module(f"{__name__}.{found.name}")
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda found: found.name)
)
ENDINGS: tuple[str, ...] = tuple(sorted(ending for reader in READERS for ending in reader.ENDINGS))
"""File endings that a search through folders takes; `open_scan` itself does not look at the ending."""

_KNOWN_BUT_UNHANDLED = (
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"ftyp", "HEIF, AVIF or video"),
    (8, b"WEBP", "WebP"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
)


def open_scan(path: Path, limit_pixels: int | None = None) -> ScanReader:
    """Open the scan at ``path``; nothing is decoded yet. The reader is also a context manager.

    Parameters
    ----------
    path : a regular file
    limit_pixels : refuse scans that declare more pixels than this; 20 gigapixels unless told

    Raises
    ------
    ScanNotFoundError, ScanUnreadableError, ScanUnsupportedError
    UsageError
        ``limit_pixels`` is below one.
    """
    limit = DEFAULT_LIMIT_PIXELS if limit_pixels is None else limit_pixels
    if limit < 1:
        raise UsageError(f"limit_pixels is {limit}: no scan could be opened; give at least 1")
    path = Path(path)
    name = str(path) if str(path).isprintable() else repr(str(path))
    head = _read_head(path, name)
    for reader in READERS:
        if reader.recognizes(head):
            try:
                opened: ScanReader = reader.open_reader(path, limit)
            except ScanError as error:
                # A raise-from chain keeps the library's own words for a debugger; the message stays ours.
                raise type(error)(f"{name}: {error}") from error.__cause__
            return opened
    for at, magic, kind in _KNOWN_BUT_UNHANDLED:
        if head[at : at + len(magic)] == magic:
            raise ScanUnsupportedError(f"{name}: a {kind} file, which is not handled; convert it to TIFF, PNG or JPEG")
    raise ScanUnreadableError(f"{name}: not an image (no TIFF, PNG or JPEG signature); remove it from the request")


def _read_head(path: Path, name: str) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ScanNotFoundError(f"{name}: a folder, not a scan; name a file inside it")
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
