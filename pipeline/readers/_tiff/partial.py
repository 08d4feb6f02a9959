"""The rows of a strip that is cut off, as far as they are whole: for salvage, of compressions that go row by row.

What follows the cut is not guessed at. Zstandard, and the formats of pictures, give nothing before all of it is there.

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
# Of bits that mean white, black, an error, and anything: no two of them go on alike.
_TAILS = (b"\xff" * 64, b"\x55" * 64, np.random.default_rng(0).bytes(64), np.random.default_rng(1).bytes(64))


def is_partial(compression: int) -> bool:
    """Whether there are rows to be had of a strip with that compression which is cut off."""
    return compression in _FAX or compression in _BYTES


def whole_rows(
    data: bytes, page: tifffile.TiffPage, shape_yx: tuple[int, int], samples: int, decode: Callable[[bytes], NDArray]
) -> NDArray:
    """(n, w, samples) of the rows that are whole in ``data``; none where that cannot be told.

    Parameters
    ----------
    shape_yx : rows and columns of the whole strip
    samples : of a pixel
    decode : (h, w, samples) of a strip that is whole
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
    # As a whole strip again, so that differences, depths and byte orders are undone as of any other.
    filled = bytes(pack(raw[: rows * row_bytes] + bytes((height - rows) * row_bytes)))
    return decode(bytes(imagecodecs.bitorder_encode(filled)) if page.fillorder == 2 else filled)[:rows]


def _undoubted(data: bytes, decode: Callable[[bytes], NDArray]) -> NDArray:
    """Rows that are the same whatever follows: a decoder of fax does not say how far it came.

    One row less, for the one with the cut may end the same way by chance.
    """
    found = decode(data)
    rows = len(found)
    for tail in _TAILS:
        rows = min(rows, _alike(found, decode(data + tail)))
    return found[: max(0, rows - 1)]


def _alike(one: NDArray, other: NDArray) -> int:
    """How many rows are the same, from the first on."""
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
    """PackBits up to the run that brings it to so many bytes: the decoder refuses what follows, and other programs do
    not look at it."""
    at, made, size = 0, 0, len(data)
    while at < size and made < most:
        head = data[at]
        made += head + 1 if head < 128 else 257 - head if head > 128 else 0
        at += head + 2 if head < 128 else 2 - (head == 128)
    return data[:at]


def _whole_runs(data: bytes) -> bytes:
    """PackBits as far as it goes on: the decoder refuses a run that is cut. Of literal bytes those that are there stay.

    A loop over runs, for each says where the next begins; some seconds for 100 MB of the shortest.
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
