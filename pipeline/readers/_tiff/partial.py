"""The complete rows of a truncated strip, for salvage: only for compressions that decode row by row.

Nothing after the cut is guessed. Zstandard, and picture formats, return nothing unless all data is there.

References
----------
TIFF 6.0 specification (Aldus, 1992), sections 9-11, 13; RFC 1950 (deflate); ITU-T T.4 and T.6 (fax).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.support.row_bands import row_strips

_FAX = frozenset((2, 3, 4))
_DEFLATE, _LZW, _PACKBITS, _LZMA = (8, 32946), 5, 32773, 34925
# Bits that decode to white, to black, to an error, and to anything: no two of them continue alike.
_TAILS = (b"\xff" * 64, b"\x55" * 64, np.random.default_rng(0).bytes(64), np.random.default_rng(1).bytes(64))


def is_partial(compression: int) -> bool:
    """True if rows can be recovered from a truncated strip of this compression."""
    return compression in _FAX or compression in _BYTES


def whole_rows(
    data: bytes, page: tifffile.TiffPage, shape_yx: tuple[int, int], samples: int, decode: Callable[[bytes], NDArray]
) -> NDArray:
    """(n, w, samples): the rows that are complete in ``data``; none if that cannot be determined.

    Parameters
    ----------
    shape_yx : rows and columns of the whole strip
    samples : samples per pixel
    decode : decodes a complete strip to (h, w, samples)
    """
    compression = int(page.compression)
    if compression in _FAX:
        return _undoubted(data, decode)
    height, width = shape_yx
    row_bytes = -(-width * samples * int(page.bitspersample) // 8)
    ordered = bytes(imagecodecs.bitorder_decode(data)) if page.fillorder == 2 else data
    unpack, pack = _BYTES[compression]
    raw = unpack(ordered, height * row_bytes)
    rows = min(height, len(raw) // row_bytes)
    # Pack it as a whole strip again, so that predictors, depths and byte orders are handled as for any other.
    filled = bytes(pack(raw[: rows * row_bytes] + bytes((height - rows) * row_bytes)))
    return decode(bytes(imagecodecs.bitorder_encode(filled)) if page.fillorder == 2 else filled)[:rows]


def _undoubted(data: bytes, decode: Callable[[bytes], NDArray]) -> NDArray:
    """Rows that come out the same whatever follows the cut: fax decoders do not report how far they got.

    The last of them is left out: the row with the cut may come out the same by chance.
    """
    found = decode(data)
    rows = len(found)
    for tail in _TAILS:
        rows = min(rows, _alike(found, decode(data + tail)))
    return found[: max(0, rows - 1)]


def _alike(one: NDArray, other: NDArray) -> int:
    """Number of equal rows, from the first on."""
    for rows in row_strips(one.shape[:2]):
        unlike = (one[rows] != other[rows]).any(axis=(1, 2))
        if unlike.any():
            return int(rows.start + unlike.argmax())
    return len(one)


def _inflated(data: bytes, most: int) -> bytes:
    return zlib.decompressobj().decompress(data, most)


def _unlzw(data: bytes, most: int) -> bytes:
    return bytes(imagecodecs.lzw_decode(data, out=most))


def _unpackbits(data: bytes, most: int) -> bytes:
    return bytes(imagecodecs.packbits_decode(_whole_runs(data), out=most))


def first_runs(data: bytes, most: int) -> bytes:
    """PackBits up to the run that reaches ``most`` bytes: the decoder rejects anything after it, which other programs
    ignore."""
    at, made, size = 0, 0, len(data)
    while at < size and made < most:
        head = data[at]
        made += head + 1 if head < 128 else 257 - head if head > 128 else 0
        at += head + 2 if head < 128 else 2 - (head == 128)
    return data[:at]


def _whole_runs(data: bytes) -> bytes:
    """PackBits without its truncated last run, which the decoder rejects; the bytes of a literal run are kept.

    A loop, because each run says where the next begins; it takes some seconds for 100 MB of the shortest runs.
    """
    at, end, size = 0, 0, len(data)
    while end < size:
        at, head = end, data[end]
        end += head + 2 if head < 128 else 2 - (head == 128)
    if end == size:
        return data
    literal = data[at + 1 :] if data[at] < 128 else b""
    return data[:at] + (bytes((len(literal) - 1,)) + literal if literal else b"")


def _unlzma(data: bytes, most: int) -> bytes:
    return bytes(imagecodecs.lzma_decode(data, out=most))


def _deflated(raw: bytes) -> bytes:
    return zlib.compress(raw, 1)


_BYTES: dict[int, tuple[Callable[[bytes, int], bytes], Callable[[bytes], bytes | bytearray]]] = {
    **dict.fromkeys(_DEFLATE, (_inflated, _deflated)),
    _LZW: (_unlzw, imagecodecs.lzw_encode),
    _PACKBITS: (_unpackbits, imagecodecs.packbits_encode),
    _LZMA: (_unlzma, imagecodecs.lzma_encode),
}
