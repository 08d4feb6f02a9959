"""JPEG XL, AVIF and JPEG-LS."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import BY_PROFILE, LOSSY, SHAPE, Variant, colour, gray, kinds, unit

SHAPES = SHAPE, (1, 1), (1, 9), (9, 1)


def variants() -> Iterator[Variant]:
    for part in (_jpeg_xl, _avif, _jpeg_ls):
        yield from part()


def _made(
    family: str, ending: str, name: str, data: bytes, written: NDArray | None, *special: str, **options: Any
) -> Variant:
    return Variant(family, name, data, ending, written=written, kinds=kinds(*special), **options)


def _jpeg_xl() -> Iterator[Variant]:
    for shape in SHAPES:
        for name, picture in {"gray": gray(shape=shape), "RGB": colour(shape=shape)}.items():
            for container in (False, True):
                data = imagecodecs.jpegxl_encode(picture, lossless=True, usecontainer=container)
                title = f"{name}, {shape[1]} x {shape[0]}{', container' * container}"
                yield _made("JPEG XL", ".jxl", title, data, unit(picture))
    rgba = np.dstack([colour(), gray()])
    yield _made("JPEG XL", ".jxl", "opacity", imagecodecs.jpegxl_encode(rgba, lossless=True), unit(colour()))
    for name, picture in {"gray": gray(), "RGB": colour()}.items():
        yield _made(
            "JPEG XL", ".jxl", f"{name}, lossy", imagecodecs.jpegxl_encode(picture, level=98), unit(picture), near=LOSSY
        )


def _avif() -> Iterator[Variant]:
    icc = imagecodecs.cms_profile("adobergb")
    rgba = np.dstack([colour(), np.maximum(gray(), 1)])
    for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:0:0"):
        for shape in (SHAPE, (16, 16), (1, 1), (3, 2)):
            picture = gray(shape=shape) if subsampling == "4:0:0" else colour(shape=shape)
            data = by_pillow(picture, subsampling=subsampling, quality=95)
            yield _made("AVIF", ".avif", f"{subsampling}, {shape[1]} x {shape[0]}", data, None, near=LOSSY)
    for range_ in ("full", "limited"):
        data = by_pillow(colour(), subsampling="4:4:4", quality=95, range=range_)
        yield _made("AVIF", ".avif", f"range {range_}", data, unit(colour()), near=LOSSY)
    yield _made(
        "AVIF", ".avif", "opacity", by_pillow(rgba, subsampling="4:4:4", quality=95), unit(colour()), near=LOSSY
    )
    data = by_pillow(rgba, subsampling="4:4:4", quality=95, alpha_premultiplied=True)
    yield _made("AVIF", ".avif", "multiplied with opacity", data, None, "premultiplied", near=LOSSY)
    data = by_pillow(colour(), subsampling="4:4:4", quality=95, icc_profile=icc)
    yield _made("AVIF", ".avif", "profile", data, None, "profile", near=BY_PROFILE + 1)
    for bits in (8, 10, 12):
        top = 2**bits - 1
        picture = colour("uint8" if bits == 8 else "uint16", top=top)
        data = imagecodecs.avif_encode(picture, level=100, bitspersample=bits, pixelformat="444")
        yield _made("AVIF", ".avif", f"{bits} bits", data, unit(picture, top), "deep AVIF" * (bits > 8), near=LOSSY)
    for value in range(2, 9):
        exif = Image.Exif()
        exif[274] = value
        data = by_pillow(colour(), subsampling="4:4:4", quality=95, exif=exif)
        yield _made("AVIF", ".avif", f"orientation {value}", data, None, "turned AVIF", near=LOSSY)


def by_pillow(picture: NDArray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "AVIF", **options)
    return file.getvalue()


def _jpeg_ls() -> Iterator[Variant]:
    for bits in (2, 4, 8, 10, 12, 16):  # the encoder takes as many as the largest sample needs
        dtype, top = ("uint8" if bits <= 8 else "uint16"), 2**bits - 1
        for name, picture in {"gray": gray(dtype, top=top), "RGB": colour(dtype, top=top)}.items():
            data = bytes(imagecodecs.jpegls_encode(picture))
            declared = data[data.index(b"\xff\xf7") + 4]
            yield _made("JPEG-LS", ".jls", f"{name} {bits} bits", data, unit(picture, 2**declared - 1))
    for shape in SHAPES[1:]:
        picture = gray(shape=shape)
        yield _made(
            "JPEG-LS", ".jls", f"gray {shape[1]} x {shape[0]}", bytes(imagecodecs.jpegls_encode(picture)), unit(picture)
        )
    data = bytes(imagecodecs.jpegls_encode(gray()))
    for missing in (1, 2):
        yield _made("JPEG-LS", ".jls", f"{missing} bytes of the end missing", data[:-missing], unit(gray()), "no end")
