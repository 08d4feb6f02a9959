"""TIFFs by what their channels and samples mean."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import BY_PROFILE, LOSSLESS, LOSSY, SHAPE, Variant, colour, gray, unit
from ._tiff_file import (
    BLACK,
    BYTES,
    CIELAB,
    CMYK,
    FLOAT,
    ICCLAB,
    ITULAB,
    PALETTE,
    RATIONAL,
    RGB,
    SHORT,
    WHITE,
    YCBCR,
    by_tifffile,
    made,
    tiff,
    with_count,
)


def variants() -> Iterator[Variant]:
    for part in (_channels, _palettes, _ycbcr, _inks, _lab, _types, _fax, _profiles):
        yield from part()


def _channels() -> Iterator[Variant]:
    family = "extra channels and what they mean"
    opacity = np.clip(gray("uint8").astype(int) + 60, 1, 255).astype(np.uint8)
    for dtype in ("uint8", "uint16"):
        alpha = opacity if dtype == "uint8" else opacity.astype(np.uint16) * 257
        for planar in (False, True):
            for name, base, photometric in (
                ("gray", gray(dtype), BLACK),
                ("RGB", colour(dtype), RGB),
                ("white is zero", gray(dtype), WHITE),
            ):
                stored = base if base.ndim == 3 else base[:, :, None]
                light = unit(base) if photometric != WHITE else 1 - unit(base)
                words: Any = {"photometric": photometric, "planar": planar, "bits": 8 * alpha.itemsize}
                about = (
                    "deep planar" * (planar and dtype == "uint16"),
                    "planar gray" * (planar and photometric != RGB),
                )
                for mark in (0, 1, 2):
                    top = int(np.iinfo(dtype).max)
                    colours = np.rint(stored * (alpha[:, :, None] / top)).astype(dtype) if mark == 1 else stored
                    if mark == 1 and photometric == WHITE:
                        continue  # nobody says whether ink or light is multiplied
                    data = tiff(np.dstack([colours, alpha]), {338: (SHORT, mark)}, **words)
                    special = "premultiplied" * (mark == 1)
                    near = LOSSY if mark == 1 and dtype == "uint8" else LOSSLESS
                    title = f"{name} {dtype}, extra {mark}{', planar' * planar}"
                    yield made(family, title, data, light, "extra channel", special, *about, near=near)
                for extra in (2, 3):
                    more_channels = np.dstack([stored, *[alpha] * extra])
                    data = tiff(more_channels, {338: (SHORT, [0] * extra)}, **words)
                    title = f"{name} {dtype}, {extra} extra{', planar' * planar}"
                    several = f"several extra channels of {name}"
                    yield made(family, title, data, light, "extra channel", "several extra channels", several, *about)
                data = tiff(np.dstack([stored, alpha]), **words)
                yield made(
                    family,
                    f"{name} {dtype}, one more, unmarked{', planar' * planar}",
                    data,
                    light,
                    "extra channel",
                    *about,
                )


def _palettes() -> Iterator[Variant]:
    family = "palettes"
    for bits in (1, 2, 4, 8):
        entries = 2**bits
        table = colour("uint16", (1, entries))[0]
        picture = gray(top=entries - 1)
        for order in "<>":
            for eight in (False, True):
                stored = table >> 8 if eight else table
                data = tiff(
                    picture, {320: (SHORT, stored.T.reshape(-1).tolist())}, bits=bits, photometric=PALETTE, order=order
                )
                name = f"{bits} bits, {'8' if eight else '16'}-bit colours, {order}"
                yield made(
                    family,
                    name,
                    data,
                    (table >> 8)[picture] / 255,
                    "8-bit palette" * eight,
                    "1-bit palette" * (bits == 1),
                )
        grays = np.linspace(65535, 0, entries).astype(np.uint16)
        data = tiff(picture, {320: (SHORT, np.tile(grays, 3).tolist())}, bits=bits, photometric=PALETTE)
        yield made(
            family, f"{bits} bits, inverted grays", data, (grays >> 8)[picture] / 255, "1-bit palette" * (bits == 1)
        )
    table = colour("uint16", (1, 65536))[0]
    data = tiff(gray("uint16"), {320: (SHORT, table.T.reshape(-1).tolist())}, bits=16, photometric=PALETTE)
    yield made(family, "16 bits", data, table[gray("uint16")] / 65535, "palette of 16 bits")
    alpha = np.dstack([gray(top=15), gray()])
    table = colour("uint16", (1, 256))[0]
    data = tiff(alpha, {320: (SHORT, table.T.reshape(-1).tolist()), 338: (SHORT, 2)}, photometric=PALETTE)
    yield made(family, "8 bits with opacity", data, (table >> 8)[alpha[:, :, 0]] / 255, "palette with opacity")


def _ycbcr() -> Iterator[Variant]:
    family = "YCbCr"
    for across, down in ((1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2), (4, 4)):
        for shape in (SHAPE, (32, 48)):
            stored = _subsampled(colour(shape=shape), across, down)
            for name, more in {"": {}, ", cosited": {531: (SHORT, 2)}}.items():
                tags = {530: (SHORT, [across, down]), 532: (RATIONAL, [0, 255, 128, 255, 128, 255]), **more}
                data = tiff(np.zeros((*shape, 3), np.uint8), tags, photometric=YCBCR)
                start = 8
                data = (
                    data[:start]
                    + stored.ljust(shape[0] * shape[1] * 3, b"\0")
                    + data[start + shape[0] * shape[1] * 3 :]
                )
                data = with_count(data, len(stored))
                yield made(
                    family,
                    f"{across} x {down} of {shape[1]} x {shape[0]}{name}",
                    data,
                    None,
                    "subsampled",
                    f"{across} x {down}",
                    near=LOSSY,
                )
    for subsampling in ((1, 1), (2, 1), (2, 2), (4, 1)):
        for tile in (None, (32, 32)):
            words: Any = {"tile": tile} if tile else {"rowsperstrip": 16}
            data = by_tifffile(
                colour(shape=(32, 48)),
                photometric="ycbcr",
                compression="jpeg",
                subsampling=subsampling,
                compressionargs={"level": 95},
                **words,
            )
            yield made(
                family,
                f"JPEG {subsampling[0]} x {subsampling[1]}{', tiles' * bool(tile)}",
                data,
                None,
                "JPEG tiles" * bool(tile),
                near=LOSSY,
            )
    data = tiff(
        _ycc(colour()), {530: (SHORT, [1, 1]), 532: (RATIONAL, [16, 235, 128, 240, 128, 240])}, photometric=YCBCR
    )
    yield made(family, "of video's range", data, None, "video range", near=LOSSY)


def _ycc(rgb: NDArray) -> NDArray:
    weights = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    return np.clip(np.rint(rgb @ weights.T + [0, 128, 128]), 0, 255).astype(np.uint8)


def _subsampled(rgb: NDArray, across: int, down: int) -> bytes:
    """Blocks of so many samples of lightness and one pair of chroma (TIFF 6.0, section 21)."""
    height, width = rgb.shape[:2]
    padded = np.pad(_ycc(rgb), ((0, -height % down), (0, -width % across), (0, 0)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // down, down, padded.shape[1] // across, across, 3).swapaxes(1, 2)
    light = blocks[..., 0].reshape(*blocks.shape[:2], -1)
    chroma = np.rint(blocks[..., 1:].mean(axis=(2, 3))).astype(np.uint8)
    return np.concatenate([light, chroma], axis=2).tobytes()


def _inks() -> Iterator[Variant]:
    family = "ink"
    for dtype in ("uint8", "uint16"):
        ink = np.dstack([np.iinfo(dtype).max - colour(dtype), gray(dtype) // 3])
        top = int(np.iinfo(dtype).max)
        light = (1 - unit(ink[:, :, :3])) * (1 - unit(ink[:, :, 3:]))
        words: Any = {"photometric": CMYK, "bits": 8 * ink.itemsize}
        deep = "16-bit ink" if dtype == "uint16" else ""
        for planar in (False, True):
            special = "deep planar" * (planar and dtype == "uint16")
            yield made(family, f"{dtype}{', planar' * planar}", tiff(ink, planar=planar, **words), light, deep, special)
        for name, tags in {"inkset": {332: (SHORT, 1)}, "dots 0 to full": {336: (SHORT, [0, top])}}.items():
            yield made(family, f"{dtype}, {name}", tiff(ink, tags, **words), light, deep)
        data = tiff(top - ink, {336: (SHORT, [top, 0])}, **words)
        yield made(family, f"{dtype}, full to 0", data, light, "paper is full", deep)
        data = tiff(np.dstack([ink, gray(dtype)]), {338: (SHORT, 2)}, **words)
        yield made(family, f"{dtype}, opacity", data, light, "ink with opacity", deep)
        for compression in ("lzw", "deflate", "jpeg"):
            if compression == "jpeg" and dtype == "uint16":
                continue
            options: Any = {"level": 98} if compression == "jpeg" else {}
            data = by_tifffile(ink, photometric="separated", compression=compression, compressionargs=options)
            near = LOSSY if compression == "jpeg" else LOSSLESS
            yield made(
                family, f"{dtype}, {compression}", data, light, "ink in JPEG" * (compression == "jpeg"), deep, near=near
            )


def _lab() -> Iterator[Variant]:
    family = "L*a*b*"
    for photometric, name in {CIELAB: "CIE", ICCLAB: "ICC", ITULAB: "ITU"}.items():
        for dtype in ("uint8", "uint16"):
            half = 128 if dtype == "uint8" else 32768
            lab = np.dstack([gray(dtype), *[np.full(SHAPE, 0 if photometric == CIELAB else half, dtype)] * 2])
            for order in "<>":
                data = tiff(lab, bits=8 * lab.itemsize, photometric=photometric, order=order)
                yield made(family, f"{name} {dtype} {order}", data, None, "L*a*b*", f"{name} L*a*b*")
    yield made(family, "L* alone", tiff(gray(), photometric=CIELAB), None, "L*a*b*", "CIE L*a*b*")


def _types() -> Iterator[Variant]:
    family = "sample formats"
    numbers = {1: "uint", 2: "int", 3: "float"}
    for form, bits in ((1, 32), (1, 64), (2, 8), (2, 16), (2, 32), (2, 64), (3, 16), (3, 32), (3, 64)):
        dtype = f"{numbers[form]}{bits}"
        for order in "<>":
            base = gray("uint16").astype(float)
            picture = (
                base / 65535
                if form == 3
                else np.clip(base / 2**8 - 100 * (form == 2), -120, 120 if bits == 8 else None)
            ).astype(dtype)
            data = tiff(picture, {339: (SHORT, form)}, bits=bits, order=order)
            yield made(family, f"{dtype} {order}", data, None, "stretched", dtype)
        if form == 3:
            data = tiff(picture * 7 - 2, {339: (SHORT, 3)}, bits=bits)
            yield made(family, f"{dtype} beyond 0 to 1", data, None, "stretched", dtype)
            data = tiff(picture * 7 - 2, {339: (SHORT, 3), 340: (FLOAT, -3.0), 341: (FLOAT, 9.0)}, bits=bits)
            yield made(family, f"{dtype} with declared ends", data, None, "stretched", "declared ends", dtype)
    yield made(family, "undefined format", tiff(gray(), {339: (SHORT, 4)}), unit(gray()))
    rgb = colour("uint16").astype(np.float32) / 65535
    yield made(
        family,
        "float32 RGB",
        tiff(rgb, {339: (SHORT, [3] * 3)}, bits=32, photometric=RGB),
        None,
        "stretched",
        "float32",
    )
    data = by_tifffile(rgb, photometric="rgb", compression="deflate", predictor=True)
    yield made(family, "float32 RGB, predicted", data, None, "stretched", "float32")


def _fax() -> Iterator[Variant]:
    family = "fax"
    picture = gray(top=1)
    light = unit(picture, 1)
    for compression in ("group3", "group4", "tiff_ccitt"):
        for white in (False, True):
            file = io.BytesIO()
            image = Image.fromarray(picture.astype(bool))
            image.save(file, "TIFF", compression=compression, tiffinfo={262: 1 - white})
            yield made(family, f"{compression}, {'white' if white else 'black'} is zero", file.getvalue(), light)
            data = with_count(file.getvalue(), 0)
            yield made(family, f"{compression}, {'white' if white else 'black'} is zero, byte count 0", data, light)
    whole = np.zeros((20, 40), np.uint8)
    for white in (0, 1):
        yield made(
            family,
            f"uncompressed, all {white}",
            tiff(whole + 1, bits=1, photometric=white),
            np.full((20, 40), float(white)),
        )


def _profiles() -> Iterator[Variant]:
    family = "profiles"
    for name in ("adobergb", "srgb", "gray"):
        for dtype in ("uint8", "uint16"):
            for picture in (gray(dtype), colour(dtype)):
                icc = imagecodecs.cms_profile(name, gamma=1.8) if name == "gray" else imagecodecs.cms_profile(name)
                tags = {34675: (BYTES, icc)}
                words: Any = {"bits": 8 * picture.itemsize, "photometric": RGB if picture.ndim == 3 else BLACK}
                special = "profile of another space" if (name == "gray") != (picture.ndim == 2) else "profile"
                data = tiff(picture, tags, **words)
                yield made(
                    family,
                    f"{name}, {dtype} {'RGB' if picture.ndim == 3 else 'gray'}",
                    data,
                    None,
                    special,
                    near=BY_PROFILE,
                )
    data = tiff(255 - gray(), {34675: (BYTES, imagecodecs.cms_profile("gray", gamma=1.8))}, photometric=WHITE)
    yield made(family, "gray, white is zero", data, None, "profile", near=BY_PROFILE)
    table = colour("uint16", (1, 256))[0]
    data = tiff(
        gray(),
        {320: (SHORT, table.T.reshape(-1).tolist()), 34675: (BYTES, imagecodecs.cms_profile("adobergb"))},
        photometric=PALETTE,
    )
    yield made(family, "palette", data, None, "profile", near=BY_PROFILE)
    yield made(
        family, "broken", tiff(colour(), {34675: (BYTES, bytes(200))}, photometric=RGB), unit(colour()), near=BY_PROFILE
    )
