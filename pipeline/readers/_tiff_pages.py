"""Which directories of a TIFF are pictures of their own, and which belong to one of them.

References
----------
TIFF 6.0 specification (Aldus, 1992), section 8 (NewSubfileType); Adobe PageMaker 6.0 TIFF Technical Notes (SubIFDs);
GDAL's GTiff driver (masks).
"""

from __future__ import annotations

from pathlib import Path

import tifffile

from ..errors import ScanError, ScanUnreadableError, ScanUnsupportedError
from ._window import reason

_MAX_PAGES = 4096  # beyond, each page is taken for a picture without a look at it
_REDUCED, _MASK = 0b1, 0b100
_MASK_BITS = (1, 8)


def open_file(path: Path) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(path)
    except Exception as error:  # damaged tags raise IndexError, TypeError, struct.error and more
        raise ScanUnreadableError(f"damaged TIFF structure ({reason(error)}); restore it from its source") from error


def picture_count(file: tifffile.TiffFile) -> int:
    """Pages that are pictures of their own; at least 1, for a file's only pages may be reduced copies."""
    found, beyond = _pictures(file)
    return max(1, len(found) + beyond)


def choose(file: tifffile.TiffFile, number: int) -> tuple[tifffile.TiffPage, tifffile.TiffPage | None]:
    """The picture with that number, from 1, and its mask."""
    found, beyond = _pictures(file)
    if not found and file.pages.first.subifds:
        raise ScanUnsupportedError("only a preview and raw data, as cameras write; develop it to TIFF first")
    found = found or [0]
    if not 1 <= number <= len(found) + beyond:
        count = len(found) + beyond
        raise ScanError(f"has no page {number}, only {count}; ask for one from 1 to {count}")
    index = found[number - 1] if number <= len(found) else _MAX_PAGES + number - len(found) - 1
    page = file.pages[index]
    return page, _mask_of(file, index, page)


def _pictures(file: tifffile.TiffFile) -> tuple[list[int], int]:
    """Indices of the pictures among the first pages, and the number of pages after those."""
    count = len(file.pages)
    if count == 0:
        raise ScanUnreadableError("holds no picture; restore it from its source")
    found = []
    for index in range(min(count, _MAX_PAGES)):
        try:
            if not int(file.pages[index].subfiletype) & (_REDUCED | _MASK):
                found.append(index)
        except Exception:
            if index == 0:
                raise
            return found, 0  # the pages from here on are damaged, but these are not
    return found, max(0, count - _MAX_PAGES)


def _mask_of(file: tifffile.TiffFile, index: int, page: tifffile.TiffPage) -> tifffile.TiffPage | None:
    """The mask among the reduced copies and masks that follow a picture; those of reduced copies have another size."""
    for after in range(index + 1, min(index + 64, len(file.pages))):
        try:
            follower = file.pages[after]
            kind = int(follower.subfiletype)
        except Exception:
            return None
        if not kind & (_REDUCED | _MASK):
            return None
        same = (follower.imagelength, follower.imagewidth) == (page.imagelength, page.imagewidth)
        gray = follower.samplesperpixel == 1 and follower.sampleformat == 1
        if kind & _MASK and same and gray and follower.bitspersample in _MASK_BITS:
            return follower
    return None
