"""PCX of version 5."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterator

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from . import SHAPE, Variant, colour, gray, unit

SMALL = (1, 1), (1, 9), (9, 1), (3, 2)
RAMP = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)


def variants() -> Iterator[Variant]:
    for part in (_bits, _palettes, _planes):
        yield from part()


# Before, Pillow neither reads nor writes rows of one RGB pixel as the format has them.
_PILLOW_HAS_NARROW = int(PIL.__version__.split(".")[0]) >= 13
_NARROW = frozenset({"narrow RGB"})


def _made(name: str, data: bytes, written: NDArray, kinds: frozenset[str] = frozenset()) -> Variant:
    return Variant("PCX", name, data, ".pcx", kinds=kinds, written=written)


def runs(row: bytes) -> bytes:
    """Run-length coded (PCX Technical Reference Manual, revision 5, "Encoding Algorithm")."""
    coded = bytearray()
    for value, same in itertools.groupby(row):
        left = len(list(same))
        while left:
            count = min(left, 63)
            coded += bytes([0xC0 | count, value]) if count > 1 or value >= 0xC0 else bytes([value])
            left -= count
    return bytes(coded)


def pcx(
    picture: NDArray,
    bits: int = 8,
    *,
    table: NDArray | None = None,
    filler: int = 0,
    over_rows: bool = False,
    dpi: tuple[int, int] = (300, 300),
    at: tuple[int, int] = (0, 0),
    kind: int = 1,
    version: int = 5,
    encoding: int = 1,
) -> bytes:
    """(h, w) numbers of 1 or 8 bits, or (h, w, n) planes.

    Parameters
    ----------
    table : (256, 3) palette behind the picture; None for none
    filler : bytes of a row's plane beyond those that fill it up to an even number
    over_rows : let runs go on over the ends of rows
    at : row and column of the first pixel
    kind : "PaletteInfo": 1 colour or black and white, 2 gray
    """
    height, width = picture.shape[:2]
    planes = picture.reshape(height, width, -1).transpose(0, 2, 1)
    stored = np.packbits(planes, axis=2) if bits == 1 else planes
    stored = np.pad(stored, ((0, 0), (0, 0), (0, stored.shape[2] % 2 + filler)))
    rows = [row.tobytes() for row in stored]
    box = (at[1], at[0], at[1] + width - 1, at[0] + height - 1)
    head = struct.pack("<BBBB6H", 10, version, encoding, bits, *box, *dpi).ljust(65, b"\0")
    head += struct.pack("<BHH", stored.shape[1], stored.shape[2], kind)
    body = runs(b"".join(rows)) if over_rows else b"".join(map(runs, rows))
    palette = b"" if table is None else b"\x0c" + table.astype(np.uint8).tobytes()
    return head.ljust(128, b"\0") + body + palette


def by_pillow(picture: NDArray | Image.Image) -> bytes:
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, "PCX")
    return file.getvalue()


def _bits() -> Iterator[Variant]:
    for shape in (SHAPE, (5, 8), (5, 600), *SMALL):
        picture = gray(shape=shape, top=1)
        yield _made(f"1 bit, {shape[1]} x {shape[0]}", pcx(picture, 1), unit(picture, 1))
    yield _made("1 bit, further bytes in a row", pcx(gray(top=1), 1, filler=4), unit(gray(top=1), 1))


def _palettes() -> Iterator[Variant]:
    table = colour(shape=(1, 256))[0]
    for shape in (SHAPE, *SMALL):
        picture = gray(shape=shape)
        yield _made(f"256 colours, {shape[1]} x {shape[0]}", pcx(picture, table=table), table[picture] / 255)
        yield _made(f"gray by Pillow, {shape[1]} x {shape[0]}", by_pillow(picture), unit(picture))
    yield _made("inverted grays", pcx(gray(), table=255 - RAMP), unit(255 - gray()))
    yield _made("gray without a palette", pcx(gray(), kind=2), unit(gray()))
    yield _made("256 colours, away from 0", pcx(gray(), table=table, at=(7, 300)), table[gray()] / 255)
    image = Image.fromarray(gray(top=15), "P")
    image.putpalette(table[:16].tobytes())
    yield _made("16 colours by Pillow", by_pillow(image), table[gray(top=15)] / 255)
    flat = np.repeat(gray(shape=(29, 1)), 200, axis=1)
    yield _made("long runs", pcx(flat, table=RAMP), unit(flat))
    data = pcx(np.repeat(flat, 2, axis=0), table=RAMP, over_rows=True)
    yield _made("runs over the ends of rows", data, unit(np.repeat(flat, 2, axis=0)))


def _planes() -> Iterator[Variant]:
    for shape in (SHAPE, *SMALL):
        picture = colour(shape=shape)
        is_narrow = shape[1] == 1
        kinds = _NARROW if is_narrow else frozenset[str]()
        yield _made(f"RGB, {shape[1]} x {shape[0]}", pcx(picture), unit(picture), kinds)
        if _PILLOW_HAS_NARROW or not is_narrow:
            yield _made(f"RGB by Pillow, {shape[1]} x {shape[0]}", by_pillow(picture), unit(picture), kinds)
    yield _made("RGB, further bytes in a row", pcx(colour(), filler=4), unit(colour()))
