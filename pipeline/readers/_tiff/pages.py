"""Which directories of a TIFF are pictures of their own, and which belong to one of them.

The chain of directories is walked here, not by `tifffile`, which mistakes a broken chain for a complete one and never
leaves a circular one. Only the kind of each directory is read; the requested picture is then opened by its offset, so
that a page of a thousand costs as much as one of two.

References
----------
TIFF 6.0 specification (Aldus, 1992), sections 2 (image file directories) and 8 (NewSubfileType); BigTIFF; Adobe
PageMaker 6.0 TIFF Technical Notes (SubIFDs); GDAL's GTiff driver (masks); Aperio's digital slides (SVS), as `tifffile`
reads them: their smaller copies are recognizable only by size.
"""

from __future__ import annotations

import os
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import tifffile

from pipeline.errors import ScanDamagedError, ScanError, ScanUnsupportedError
from pipeline.readers._base import reason, refuse_drive_errors
from pipeline.readers._fingerprint_cache import FingerprintCache

_MAX_DIRECTORIES = 2**18
_MAX_TAGS = 4096  # per directory, as in tifffile
_REDUCED, _MASK = 0b1, 0b100
_MASK_BITS = (1, 8)
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE = 254, 255
_WIDTH, _LENGTH, _DESCRIPTION, _TILE_WIDTH = 256, 257, 270, 322
_TELLING = frozenset((_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _WIDTH, _LENGTH, _TILE_WIDTH))
_TEXT, _APERIO = 2, b"Aperio "
_INTEGER_BYTES = {1: 1, 3: 2, 4: 4, 16: 8}
_FORMATS: dict[bytes, Any] = {
    b"II*\0": tifffile.TIFF.CLASSIC_LE,
    b"MM\0*": tifffile.TIFF.CLASSIC_BE,
    b"II+\0": tifffile.TIFF.BIG_LE,
    b"MM\0+": tifffile.TIFF.BIG_BE,
}


@dataclass(frozen=True)
class Chain:
    """The directories of a file, in their order.

    Attributes
    ----------
    offsets : first byte of each
    kinds : the lowest bits of the NewSubfileType of each; smaller copies of a slide are marked as reduced
    broken : more directories should follow, but the pointer leads beyond the end or not to a directory
    loose : unknown whether more follow: the last pointer is missing, or the only one leads beyond the end
    loops : the last directory points back to an earlier one
    """

    offsets: array[int]
    kinds: bytes
    broken: bool = False
    loose: bool = False
    loops: bool = False

    @property
    def pictures(self) -> list[int]:
        """Indices of the pictures of their own; at least one, even if all directories are reduced copies."""
        return [index for index, kind in enumerate(self.kinds) if not kind & (_REDUCED | _MASK)] or [0]

    @property
    def dropped(self) -> tuple[str, ...]:
        """Notes on the pages that a broken chain does not reach."""
        if self.loose:
            return (
                f"pages that may follow page {len(self.pictures)} (what should lead to them is missing or damaged)",
            )
        return (f"the pages after page {len(self.pictures)} (the file is cut off or damaged there)",) * self.broken


_CHAINS: FingerprintCache[Chain] = FingerprintCache(16)


def chain_of(path: Path, *, salvage: bool = False) -> Chain:
    """The directories of a file; with ``salvage``, those that can be reached.

    Raises
    ------
    ScanUnreadableError : the chain is empty or broken
    OSError : the file cannot be read
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        # Hamamatsu's slides have 64-bit pointers, which only the file name reveals; tifffile uses the same rule.
        slide = path.suffix.lower() == ".ndpi"
        chain = _CHAINS.get(status, slide, lambda: _walked(file, status.st_size, slide=slide))
    if not chain.offsets:
        raise ScanDamagedError("damaged TIFF structure (it leads to no picture); restore it from its source")
    if chain.broken and not salvage:
        count = len(chain.pictures)
        raise ScanDamagedError(
            f"cut off: only {count} page{'s' * (count > 1)} can be reached and others should follow; "
            "copy it again from its source"
        )
    return chain


def _walked(file: BinaryIO, file_bytes: int, *, slide: bool) -> Chain:
    head = file.read(16)
    layout = _FORMATS.get(head[:4])
    if layout is None:
        raise ScanDamagedError("damaged TIFF structure (no header); restore it from its source")
    layout = tifffile.TIFF.NDPI_LE if slide and layout is tifffile.TIFF.CLASSIC_LE else layout
    first = 8 if layout.version == 43 else 4
    try:
        (offset,) = struct.unpack_from(layout.offsetformat, head, first)
    except struct.error:
        return Chain(array("Q"), b"")
    offsets, kinds, seen, left = array("Q"), bytearray(), set[int](), file_bytes
    slide_yx: tuple[int, int] | None = None
    while offset and offset not in seen:
        if len(offsets) == 1 and offset >= file_bytes:  # a junk pointer is likelier than a cut exactly here
            return Chain(offsets, bytes(kinds), loose=True)
        entries, following = _directory(file, layout, offset, file_bytes)
        left -= len(entries)
        if not entries or left < 0:  # directories overlap
            return Chain(offsets, bytes(kinds), broken=True)
        if len(offsets) == _MAX_DIRECTORIES:
            raise ScanUnsupportedError(f"has more than {_MAX_DIRECTORIES} directories; split it into several files")
        seen.add(offset)
        offsets.append(offset)
        values = _values_of(layout, entries)
        if len(offsets) == 1:
            slide_yx = _size_of(values) if _is_aperio(file, layout, entries, values) else None
        copy = slide_yx is not None and _is_copy(values, slide_yx, is_second=len(offsets) == 2)
        kinds.append((_kind_of(values) | _REDUCED * copy) & 0xFF)
        if following is None:
            return Chain(offsets, bytes(kinds), loose=True)
        offset = following
    return Chain(offsets, bytes(kinds), loops=bool(offset))


def _directory(file: BinaryIO, layout: Any, offset: int, file_bytes: int) -> tuple[bytes, int | None]:
    """The entries of a directory, empty if there is none, and the offset of the next; None if that is cut off."""
    if offset > file_bytes - layout.tagnosize:
        return b"", None
    file.seek(offset)
    (count,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    if not 1 <= count <= _MAX_TAGS:
        return b"", None
    entries = file.read(count * layout.tagsize)
    following = file.read(layout.offsetsize)
    if len(entries) < count * layout.tagsize:
        return b"", None
    if len(following) < layout.offsetsize:
        return entries, None
    return entries, int(struct.unpack(layout.offsetformat, following)[0])


def _values_of(layout: Any, entries: bytes) -> dict[int, int]:
    """The first number of each tag that helps to classify a directory."""
    found: dict[int, int] = {}
    order = "little" if layout.byteorder == "<" else "big"
    field = layout.tagsize - layout.tagoffsetthreshold
    for at in range(0, len(entries), layout.tagsize):
        code, kind = struct.unpack_from(layout.byteorder + "HH", entries, at)
        if code in _TELLING and kind in _INTEGER_BYTES:
            value = entries[at + field : at + field + min(_INTEGER_BYTES[kind], layout.tagoffsetthreshold)]
            found.setdefault(code, int.from_bytes(value, order))  # type: ignore[arg-type]
    return found


def _kind_of(values: dict[int, int]) -> int:
    """NewSubfileType, or "reduced copy" by the older SubfileType."""
    return values.get(_NEW_SUBFILE_TYPE, 0) or (_REDUCED if values.get(_SUBFILE_TYPE) == 2 else 0)


def _size_of(values: dict[int, int]) -> tuple[int, int]:
    return values.get(_LENGTH, 0), values.get(_WIDTH, 0)


def _is_aperio(file: BinaryIO, layout: Any, entries: bytes, values: dict[int, int]) -> bool:
    """True if the first directory is a tiled picture whose description begins as Aperio's do."""
    field = layout.tagsize - layout.tagoffsetthreshold
    for at in range(0, len(entries) if _TILE_WIDTH in values else 0, layout.tagsize):
        code, kind = struct.unpack_from(layout.byteorder + "HH", entries, at)
        if (code, kind) == (_DESCRIPTION, _TEXT):
            (offset,) = struct.unpack_from(layout.offsetformat, entries, at + field)
            file.seek(min(offset, os.fstat(file.fileno()).st_size))
            return file.read(len(_APERIO)) == _APERIO
    return False


def _is_copy(values: dict[int, int], slide_yx: tuple[int, int], *, is_second: bool) -> bool:
    """True if a directory is a slide's thumbnail, which comes second, or a tiled copy of the same aspect ratio."""
    (height, width), (tall, wide) = _size_of(values), slide_yx
    if not (0 < height < tall and 0 < width < wide):
        return False
    # Each side was rounded independently.
    alike = abs(height * wide - width * tall) <= max(height * wide // 50, tall + wide)
    return alike and (is_second or _TILE_WIDTH in values)


def open_file(path: Path, chain: Chain) -> tifffile.TiffFile:
    # For some microscopes' files tifffile reads all pages at once, and never ends if the chain is circular.
    known = {"is_lsm": False, "is_ndpi": False} if chain.loops else {}
    try:
        return tifffile.TiffFile(path, **known)
    except Exception as error:  # damaged tags raise IndexError, TypeError, struct.error and more
        refuse_drive_errors(error)
        raise ScanDamagedError(f"damaged TIFF structure ({reason(error)}); restore it from its source") from error


def choose(file: tifffile.TiffFile, chain: Chain, number: int) -> tuple[tifffile.TiffPage, tifffile.TiffPage | None]:
    """The picture with this ``number``, counted from 1, and its mask."""
    found = chain.pictures
    if chain.kinds[found[0]] & (_REDUCED | _MASK) and file.pages.first.subifds:
        raise ScanUnsupportedError("only a preview and raw data, as cameras write; develop it to TIFF first")
    if not 1 <= number <= len(found):
        raise ScanError(f"has no page {number}, only {len(found)}; ask for one from 1 to {len(found)}")
    index = found[number - 1]
    page = _page(file, chain, index)
    return page, _mask_of(file, chain, index, page)


def _page(file: tifffile.TiffFile, chain: Chain, index: int) -> tifffile.TiffPage:
    if index == 0:
        return file.pages.first
    if file.is_lsm or file.is_ndpi or file.is_scanimage:  # tifffile corrects these formats' page tags
        return file.pages[index]
    file.filehandle.seek(chain.offsets[index])
    return tifffile.TiffPage(file, index=index)


def _mask_of(file: tifffile.TiffFile, chain: Chain, index: int, page: tifffile.TiffPage) -> tifffile.TiffPage | None:
    """The mask among the reduced copies and masks that follow a picture; those of reduced copies have another size."""
    for after in range(index + 1, min(index + 64, len(chain.offsets))):
        kind = chain.kinds[after]
        if not kind & (_REDUCED | _MASK):
            return None
        if not kind & _MASK:
            continue
        try:
            follower = _page(file, chain, after)
        except Exception as error:
            refuse_drive_errors(error)
            return None
        same = (follower.imagelength, follower.imagewidth) == (page.imagelength, page.imagewidth)
        gray = follower.samplesperpixel == 1 and follower.sampleformat == 1
        if same and gray and follower.bitspersample in _MASK_BITS:
            return follower
    return None
