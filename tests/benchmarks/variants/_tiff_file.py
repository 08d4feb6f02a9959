"""TIFFs written by hand, where a library would not write them: every tag is as it is asked for."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from . import Variant, kinds

SHORT, LONG, RATIONAL, BYTES, ASCII, SIGNED, FLOAT = 3, 4, 5, 7, 2, 9, 11
_FORMATS = {SHORT: "H", LONG: "I", SIGNED: "i", FLOAT: "f", 16: "Q"}
WHITE, BLACK, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB, ITULAB = 0, 1, 2, 3, 5, 6, 8, 9, 10
Tags = dict[int, Any]


def packed(samples: NDArray, bits: int, order: str = "<") -> bytes:
    """Rows (h, n) of numbers of so many bits, each row of whole bytes; of 8, 16, 32 and 64 bits by the byte order."""
    if bits in (8, 16, 32, 64):
        return np.ascontiguousarray(samples).astype(samples.dtype.newbyteorder(order)).tobytes()
    places = np.arange(bits - 1, -1, -1)
    spread = (samples[..., None].astype(np.uint32) >> places & 1).astype(np.uint8)
    return np.packbits(spread.reshape(len(samples), -1), axis=1).tobytes()


def tiff(
    picture: NDArray,
    tags: Tags | None = None,
    *,
    bits: int = 8,
    photometric: int = BLACK,
    order: str = "<",
    big: bool = False,
    planar: bool = False,
    rows: int = 0,
    tile: int = 0,
    compression: int = 1,
    uncounted: str = "",
    without: tuple[int, ...] = (),
) -> bytes:
    """(h, w) or (h, w, n) samples as a TIFF.

    Parameters
    ----------
    rows : of a strip; 0 for one strip
    tile : side of square tiles; 0 for strips
    uncounted : "zero" writes byte counts of 0
    without : tags that are left out
    """
    stored = picture if picture.ndim == 3 else picture[:, :, None]
    height, width, samples = stored.shape
    planes = [stored[:, :, n : n + 1] for n in range(samples)] if planar else [stored]
    tall, wide = (tile, tile) if tile else (rows or height, width)
    file = bytearray(struct.pack(f"{order}2sH{'HHQ' if big else 'I'}", *_head(order, big)))
    offsets, counts = [], []
    for plane in planes:
        for y in range(0, height, tall):
            for x in range(0, width, wide):
                part = plane[y : y + tall, x : x + wide]
                if tile:
                    part = np.pad(part, ((0, tall - part.shape[0]), (0, wide - part.shape[1]), (0, 0)))
                data = encoded(packed(part.reshape(len(part), -1), bits, order), compression)
                offsets.append(len(file))
                counts.append(0 if uncounted else len(data))
                file += data + bytes(len(data) % 2)
    found: Tags = {256: (SHORT, width), 257: (SHORT, height), 258: (SHORT, [bits] * samples), 259: (SHORT, compression)}
    found |= {262: (SHORT, photometric), 277: (SHORT, samples), 284: (SHORT, 1 + planar)}
    found |= {322: (SHORT, tile), 323: (SHORT, tile)} if tile else {278: (SHORT, rows or height)}
    found |= {324 if tile else 273: (LONG, offsets), 325 if tile else 279: (LONG, counts)} | (tags or {})
    return bytes(_with_directory(file, {k: v for k, v in found.items() if k not in without}, order, big))


def _head(order: str, big: bool) -> tuple[Any, ...]:
    mark = b"II" if order == "<" else b"MM"
    return (mark, 43, 8, 0, 0) if big else (mark, 42, 0)


def encoded(data: bytes, compression: int) -> bytes:
    codecs = {1: bytes, 5: imagecodecs.lzw_encode, 8: zlib.compress, 32773: imagecodecs.packbits_encode}
    return bytes(codecs[compression](data))


def _with_directory(file: bytearray, tags: Tags, order: str, big: bool) -> bytearray:
    entries, room = [], 8 if big else 4
    for code, (kind, values) in sorted(tags.items()):
        listed = list(values) if isinstance(values, list | tuple | bytes) else [values]
        if kind in (ASCII, BYTES, 1):
            data, count = bytes(listed), len(listed)
        elif kind == RATIONAL:
            data, count = b"".join(struct.pack(f"{order}II", round(v * 10000), 10000) for v in listed), len(listed)
        else:
            data, count = struct.pack(f"{order}{len(listed)}{_FORMATS[kind]}", *listed), len(listed)
        if len(data) > room:
            file += bytes(len(file) % 2) + data
            data = struct.pack(f"{order}{'Q' if big else 'I'}", len(file) - len(data))
        entries.append(struct.pack(f"{order}HH{'Q' if big else 'I'}", code, kind, count) + data.ljust(room, b"\0"))
    file += bytes(len(file) % 2)
    struct.pack_into(f"{order}{'Q' if big else 'I'}", file, 8 if big else 4, len(file))
    return file + struct.pack(f"{order}{'Q' if big else 'H'}", len(entries)) + b"".join(entries) + bytes(room)


def by_tifffile(picture: NDArray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, picture, metadata=None, **options)
    return file.getvalue()


def made(family: str, name: str, data: bytes, written: NDArray | None = None, *special: str, **options: Any) -> Variant:
    return Variant(f"TIFF: {family}", name, data, ".tif", written=written, kinds=kinds(*special), **options)


def with_count(data: bytes, size: int) -> bytes:
    """With that byte count of its one strip."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    made = bytearray(data)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, entry)[0] == 279:
            struct.pack_into("<I", made, entry + 8, size)
    return bytes(made)
