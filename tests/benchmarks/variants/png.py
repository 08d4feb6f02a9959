"""PNGs of every colour type and depth, with what says how light their samples are, written by hand."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from . import BY_PROFILE, SHAPE, Variant, colour, gray, kinds, unit
from ._tiff_file import packed

MAGIC = b"\x89PNG\r\n\x1a\n"
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_NAMES = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with opacity", 6: "RGB with opacity"}


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(picture: NDArray, bits: int, kind: int, *more: bytes, interlaced: bool = False) -> bytes:
    """(h, w, n) samples; ``more`` are chunks ahead of the pixels."""
    height, width = picture.shape[:2]
    stored = picture.reshape(height, width, -1)
    parts = [stored[y::down, x::across] for y, x, down, across in _PASSES] if interlaced else [stored]
    rows = []
    for part in parts:
        for row in part if part.size else ():
            rows.append(b"\0" + packed(row.reshape(1, -1), bits, ">"))
    data = zlib.compress(b"".join(rows))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced))
    half = len(data) // 2
    return (
        MAGIC + head + b"".join(more) + chunk(b"IDAT", data[:half]) + chunk(b"IDAT", data[half:]) + chunk(b"IEND", b"")
    )


def samples(kind: int, bits: int, shape: tuple[int, int] = SHAPE) -> tuple[NDArray, NDArray, tuple[bytes, ...]]:
    """Of a colour type and depth: what is stored, what it means from 0 to 1, and the palette's chunk."""
    dtype, top = ("uint8" if bits <= 8 else "uint16"), 2**bits - 1
    if kind == 3:
        table, picture = colour("uint8", (1, 2**bits))[0], gray("uint8", shape, top)
        return picture, table[picture] / 255, (chunk(b"PLTE", table.tobytes()),)
    colours = gray(dtype, shape, top) if kind in (0, 4) else colour(dtype, shape, top)
    stored = np.dstack([colours, gray(dtype, shape, top)]) if kind in (4, 6) else colours
    return stored, unit(colours, top), ()


def variants() -> Iterator[Variant]:
    for part in (_types, _keys, _tones, _ends):
        yield from part()


def _made(family: str, name: str, data: bytes, written: NDArray | None, *special: str, **options: Any) -> Variant:
    return Variant(f"PNG: {family}", name, data, ".png", written=written, kinds=kinds(*special), **options)


def _types() -> Iterator[Variant]:
    for kind, depths in _DEPTHS.items():
        for bits in depths:
            for interlaced in (False, True):
                for shape in (SHAPE, (1, 1), (1, 7), (3, 2)):
                    stored, light, more = samples(kind, bits, shape)
                    name = f"{_NAMES[kind]} {bits} bits{', interlaced' * interlaced}, {shape[1]} x {shape[0]}"
                    yield _made(
                        "types, depths, sizes", name, png(stored, bits, kind, *more, interlaced=interlaced), light
                    )


def _keys() -> Iterator[Variant]:
    """A colour that is transparent is no other colour for it."""
    for kind, bits in ((0, 1), (0, 8), (0, 16), (2, 8), (2, 16), (3, 2), (3, 8)):
        stored, light, more = samples(kind, bits)
        values = bytes([0, 128]) if kind == 3 else np.ravel(stored[4, 4]).astype(">u2").tobytes()
        data = png(stored, bits, kind, *more, chunk(b"tRNS", values))
        yield _made("transparent colours", f"{_NAMES[kind]} {bits} bits", data, light, "colour key")


def _tones() -> Iterator[Variant]:
    wide = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    srgb = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    icc = chunk(b"iCCP", b"a\0\0" + zlib.compress(imagecodecs.cms_profile("adobergb")))
    for kind, bits in ((0, 8), (0, 16), (2, 8), (2, 16), (3, 8), (4, 8), (6, 8)):
        stored, light, more = samples(kind, bits)
        for gamma in (100000, 55556, 45455):
            key = chunk(b"gAMA", struct.pack(">I", gamma))
            for name, body in (("", b""), (", sRGB's primaries", srgb), (", other primaries", wide)):
                if body and kind in (0, 4):
                    continue
                ahead = (key, chunk(b"cHRM", body)) if body else (key,)
                title = f"{_NAMES[kind]} {bits} bits, gamma {gamma / 100000:.5g}{name}"
                special = "primaries" if body == wide else ""
                yield _made(
                    "gamma, primaries, profiles", title, png(stored, bits, kind, *ahead, *more), None, "gamma", special
                )
        name = f"{_NAMES[kind]} {bits} bits"
        ahead = (chunk(b"gAMA", struct.pack(">I", 100000)), chunk(b"sRGB", b"\0"))
        yield _made(
            "gamma, primaries, profiles",
            f"{name}, sRGB before gamma",
            png(stored, bits, kind, *ahead, *more),
            light,
            "srgb chunk",
        )
        if kind in (2, 3, 6):
            data = png(stored, bits, kind, icc, *more)
            yield _made("gamma, primaries, profiles", f"{name}, profile", data, None, "profile", near=BY_PROFILE)
            data = png(stored, bits, kind, chunk(b"gAMA", struct.pack(">I", 100000)), icc, *more)
            yield _made(
                "gamma, primaries, profiles", f"{name}, profile before gamma", data, None, "profile", near=BY_PROFILE
            )


def _ends() -> Iterator[Variant]:
    for kind, bits in ((0, 8), (2, 16), (3, 4)):
        stored, light, more = samples(kind, bits)
        for interlaced in (False, True):
            data = png(stored, bits, kind, *more, interlaced=interlaced)
            for missing in (1, 4, 8, 12, 14, 16):
                name = f"{_NAMES[kind]}{', interlaced' * interlaced}, {missing} bytes of the end missing"
                yield _made("ends", name, data[:-missing], light, "no end")
            yield _made(
                "ends", f"{_NAMES[kind]}{', interlaced' * interlaced}, bytes behind it", data + b"IEND" * 99, light
            )
