"""JPEGs: channels and what they mean, subsampling, ends, markers."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import LOSSY, SHAPE, Variant, colour, gray, kinds

_SUBSAMPLING = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}


def variants() -> Iterator[Variant]:
    for part in (_plain, _markers, _inks, _ends, _profiles, _deep):
        yield from part()


def _made(family: str, name: str, data: bytes, *special: str, **options: Any) -> Variant:
    return Variant(
        f"JPEG: {family}", name, data, ".jpg", near=options.pop("near", LOSSY), kinds=kinds(*special), **options
    )


def by_pillow(picture: NDArray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def without(data: bytes, marker: int) -> bytes:
    """Of the segments before the first scan those with another marker."""
    at, kept = 2, [data[:2]]
    while data[at + 1] != 0xDA:
        size = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        kept += [data[at : at + size]] * (data[at + 1] != marker)
        at += size
    return b"".join(kept) + data[at:]


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + data[2:]


def renamed(data: bytes, names: bytes) -> bytes:
    """With those names of components, in the frame's header and that of each scan."""
    made = bytearray(data)
    frame = next(at for at in range(len(data)) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC1, 0xC2))
    old = {data[frame + 10 + 3 * n]: name for n, name in enumerate(names)}
    for n in range(len(names)):
        made[frame + 10 + 3 * n] = names[n]
    at = frame
    while (at := data.find(b"\xff\xda", at + 1)) >= 0:
        for n in range(data[at + 4]):
            made[at + 5 + 2 * n] = old[data[at + 5 + 2 * n]]
    return bytes(made)


def _plain() -> Iterator[Variant]:
    family = "subsampling, progression, sizes"
    for shape in (SHAPE, (1, 1), (1, 9), (17, 1), (16, 16)):
        for progressive in (False, True):
            size = f"{shape[1]} x {shape[0]}{', progressive' * progressive}"
            yield _made(family, f"gray, {size}", by_pillow(gray(shape=shape), progressive=progressive))
            for subsampling in (0, 1, 2):
                data = by_pillow(colour(shape=shape), subsampling=subsampling, progressive=progressive)
                yield _made(family, f"colour, Pillow's {subsampling}, {size}", data)
    for subsampling, factors in _SUBSAMPLING.items():
        data = _by_opencv(factors)
        yield _made(family, f"colour {subsampling}", data)
    for blocks in (1, 2, 7):
        yield _made(family, f"restarts, {blocks}", by_pillow(colour(), restart_marker_blocks=blocks))
    yield _made(family, "a table for each", by_pillow(colour(), qtables="web_high"))


def _by_opencv(factors: int) -> bytes:
    words = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factors]
    return bytes(cv2.imencode(".jpg", colour()[:, :, ::-1], words)[1].tobytes())


def _markers() -> Iterator[Variant]:
    family = "colour spaces and their markers"
    rgb = imagecodecs.jpeg8_encode(colour(), level=98, colorspace="RGB", outcolorspace="RGB")
    ycc = by_pillow(colour(), subsampling=0)
    plain = without(without(rgb, 0xEE), 0xE0)
    bare = without(ycc, 0xE0)
    adobe = b"Adobe\0\x64\0\0\0\0"
    for name, data in {
        "RGB, Adobe's 0": with_segment(plain, 0xEE, adobe + b"\0"),
        "RGB, called R, G, B": renamed(plain, b"RGB"),
        "YCC, JFIF": ycc,
        "YCC, no marker, 1, 2, 3": bare,
        "YCC, Adobe's 1": with_segment(bare, 0xEE, adobe + b"\1"),
        "YCC, JFIF and Adobe's 1": with_segment(ycc, 0xEE, adobe + b"\1"),
        "YCC, called 0, 1, 2": renamed(bare, b"\0\1\2"),
        "YCC, JFIF, called R, G, B": renamed(ycc, b"RGB"),
        "YCC, JFIF and Adobe's 0": with_segment(ycc, 0xEE, adobe + b"\0"),
        "YCC, Adobe's 0": with_segment(bare, 0xEE, adobe + b"\0"),
        "YCC, Exif alone": with_segment(bare, 0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
        "gray, no marker": without(by_pillow(gray()), 0xE0),
        "gray, Adobe's 0": with_segment(without(by_pillow(gray()), 0xE0), 0xEE, adobe + b"\0"),
        "gray with 2 x 2 sampling": _sampled(by_pillow(gray(shape=(32, 32))), 0x22),
    }.items():
        special = "names of components" if name in ("YCC, JFIF, called R, G, B", "YCC, Adobe's 0") else ""
        yield _made(family, name, data, special)
    for value in range(1, 9):
        exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, value, 0) + bytes(4)
        yield _made("orientation", f"{value}", with_segment(ycc, 0xE1, exif))


def _sampled(data: bytes, factors: int) -> bytes:
    made = bytearray(data)
    made[next(at for at in range(len(data)) if data[at : at + 2] == b"\xff\xc0") + 11] = factors
    return bytes(made)


def _inks() -> Iterator[Variant]:
    family = "ink"
    ink = np.dstack([255 - colour(), gray() // 3])
    light = (1 - ink[:, :, :3] / 255) * (1 - ink[:, :, 3:] / 255)
    for space in ("CMYK", "YCCK"):
        for subsampling in ("444", "420"):
            data = imagecodecs.jpeg8_encode(
                255 - ink, level=98, colorspace="CMYK", outcolorspace=space, subsampling=subsampling
            )
            yield _made(family, f"{space} {subsampling}, Adobe's marker", data, written=light)
            if space == "CMYK":
                bare = without(data, 0xEE)
                yield _made(family, f"{space} {subsampling}, no marker", bare, written=light)
                yield _made(family, f"{space} {subsampling}, called C, M, Y, K", renamed(bare, b"CMYK"), written=light)
                jfif = with_segment(bare, 0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
                yield _made(family, f"{space} {subsampling}, JFIF", jfif, written=light)
                yield _made(family, f"{space} {subsampling}, Adobe's 0 and no end", data[:-2], "no end", written=light)
    for progressive in (False, True):
        file = io.BytesIO()
        Image.fromarray(ink, "CMYK").save(file, "JPEG", quality=98, progressive=progressive)
        yield _made(family, f"Pillow's{', progressive' * progressive}", file.getvalue(), written=light)


def _ends() -> Iterator[Variant]:
    family = "ends"
    trailer = b"SEFH" + b"j\0 \x07" * 40 + b"SEFT"
    for name, picture in {"gray": gray(), "colour": colour()}.items():
        for progressive in (False, True):
            data = by_pillow(picture, progressive=progressive)
            title = f"{name}{', progressive' * progressive}"
            yield _made(family, f"{title}, no end", data[:-2], "no end")
            yield _made(family, f"{title}, half an end", data[:-1], "no end")
            yield _made(family, f"{title}, bytes behind the end", data + trailer)
            yield _made(family, f"{title}, zeros behind the end", data + bytes(5000))
            if not progressive:
                yield _made(family, f"{title}, a trailer for an end", data[:-2] + trailer, "no end")
            yield _made(family, f"{title}, fill bytes before the end", data[:-2] + b"\xff\xff" + data[-2:])


def _profiles() -> Iterator[Variant]:
    family = "profiles"
    for name in ("adobergb", "srgb", "gray"):
        icc = imagecodecs.cms_profile(name, gamma=1.8) if name == "gray" else imagecodecs.cms_profile(name)
        for kind, picture in {"gray": gray(), "colour": colour()}.items():
            special = "profile of another space" if (name == "gray") != (kind == "gray") else "profile"
            yield _made(
                family, f"{name}, {kind}", by_pillow(picture, icc_profile=icc, subsampling=0), special, near=3.0
            )
    yield _made(family, "broken", by_pillow(colour(), icc_profile=bytes(200)))


def _deep() -> Iterator[Variant]:
    for name, picture in {"gray": gray("uint16", top=4095), "colour": colour("uint16", top=4095)}.items():
        data = imagecodecs.jpeg8_encode(picture, level=98, bitspersample=12)
        yield _made("12 bits", name, data, written=picture / 4095)
