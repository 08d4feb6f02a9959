"""BMP, GIF, PNM, SGI, WebP, JPEG 2000, NITF and Erdas Imagine."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from PIL import Image

from . import BY_PROFILE, LOSSLESS, LOSSY, SHAPE, Variant, colour, gray, kinds, unit
from ._tiff_file import packed

SMALL = (1, 1), (1, 5), (5, 1), (3, 2)


def variants() -> Iterator[Variant]:
    for part in (_bmp, _gif, _pnm, _sgi, _webp, _jpeg2000, _by_gdal):
        yield from part()


def _made(
    family: str, ending: str, name: str, data: Any, written: NDArray | None, *special: str, **options: Any
) -> Variant:
    return Variant(family, name, data, ending, written=written, kinds=kinds(*special), **options)


def by_pillow(picture: NDArray | Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, kind, **options)
    return file.getvalue()


def bmp(
    picture: NDArray,
    bits: int,
    *,
    table: NDArray | None = None,
    header: int = 40,
    downward: bool = False,
    compression: int = 0,
    masks: tuple[int, ...] = (),
    data: bytes | None = None,
) -> bytes:
    """Samples as they are stored, (h, w) numbers of so many bits or (h, w, 3 or 4) blue, green, red."""
    height, width = picture.shape[:2]
    rows = picture if downward else picture[::-1]
    if data is None:
        if bits in (24, 32):
            body = [row.tobytes() for row in rows.astype(np.uint8)]
        elif bits == 16:
            body = [row.astype("<u2").tobytes() for row in rows]
        else:
            body = [packed(row[None], bits) for row in rows]
        data = b"".join(row + bytes(-len(row) % 4) for row in body)
    if header == 12:
        head = struct.pack("<IHHHH", 12, width, height, 1, bits)
        colours = b"" if table is None else table[:, ::-1].astype(np.uint8).tobytes()
    else:
        used = 0 if table is None else len(table)
        signed = -height if downward else height
        head = struct.pack("<IiiHHIIiiII", header, width, signed, 1, bits, compression, len(data), 2835, 2835, used, 0)
        if header > 40:
            head += struct.pack("<4I", *(*masks, 0, 0, 0, 0)[:4])[: header - 40]
            head = head.ljust(header, b"\0")
            head = head[:56] + b"BGRs" + head[60:] if header >= 108 else head
        elif compression == 3:
            head += struct.pack(f"<{len(masks)}I", *masks)
        colours = b"" if table is None else b"".join(bytes([*entry[::-1], 0]) for entry in table.astype(np.uint8))
    start = 14 + len(head) + len(colours)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + head + colours + data


def _bmp() -> Iterator[Variant]:
    for bits in (1, 4, 8):
        for shape in (SHAPE, *SMALL):
            picture, table = gray(shape=shape, top=2**bits - 1), colour(shape=(1, 2**bits))[0]
            for header in (12, 40, 108, 124):
                for downward in (False, True):
                    if (downward and header != 40) or (shape != SHAPE and header != 40):
                        continue
                    data = bmp(picture, bits, table=table, header=header, downward=downward)
                    name = f"{bits} bits, header of {header}{', downward' * downward}, {shape[1]} x {shape[0]}"
                    yield _made("BMP", ".bmp", name, data, table[picture] / 255, "OS/2" * (header == 12))
        picture = np.minimum(gray(top=2**bits - 1), 2**bits * 3 // 4)
        table = colour(shape=(1, 2**bits))[0][: max(2, 2**bits * 3 // 4 + 1)]
        yield _made("BMP", ".bmp", f"{bits} bits, fewer colours", bmp(picture, bits, table=table), table[picture] / 255)
        grays = np.repeat(np.linspace(255, 0, 2**bits).astype(np.uint8)[:, None], 3, 1)
        picture = gray(top=2**bits - 1)
        yield _made(
            "BMP", ".bmp", f"{bits} bits, inverted grays", bmp(picture, bits, table=grays), grays[picture, 0] / 255
        )
    rgb = colour()
    for shape in (SHAPE, *SMALL):
        for downward in (False, True):
            small = colour(shape=shape)
            name = f"24 bits{', downward' * downward}, {shape[1]} x {shape[0]}"
            yield _made("BMP", ".bmp", name, bmp(small[:, :, ::-1], 24, downward=downward), unit(small))
    for header in (12, 108, 124):
        data = bmp(rgb[:, :, ::-1], 24, header=header)
        yield _made("BMP", ".bmp", f"24 bits, header of {header}", data, unit(rgb), "OS/2" * (header == 12))
    four = np.dstack([rgb[:, :, ::-1], np.full(SHAPE, 7, np.uint8)])
    yield _made("BMP", ".bmp", "32 bits", bmp(four, 32), unit(rgb))
    masks = {
        "usual masks": ((0xFF0000, 0xFF00, 0xFF), [0, 1, 2, 3]),
        "reversed masks": ((0xFF, 0xFF00, 0xFF0000), [2, 1, 0, 3]),
        "mixed masks": ((0xFF00, 0xFF, 0xFF0000), [1, 2, 0, 3]),
        "masks of the upper bytes": ((0xFF000000, 0xFF0000, 0xFF00), [3, 0, 1, 2]),
    }
    for name, (each, order) in masks.items():
        stored = four[:, :, order]
        yield _made(
            "BMP",
            ".bmp",
            f"32 bits, {name}",
            bmp(stored, 32, compression=3, masks=each),
            unit(rgb),
            "odd masks" * (name != "usual masks"),
            name,
        )
        for header in (108, 124):
            data = bmp(stored, 32, compression=3, masks=each, header=header)
            yield _made("BMP", ".bmp", f"32 bits, {name}, header of {header}", data, unit(rgb))
    for name, shifts, compression in (
        ("555", (10, 5, 0, 31, 31, 31), 0),
        ("555", (10, 5, 0, 31, 31, 31), 3),
        ("565", (11, 5, 0, 31, 63, 31), 3),
        ("565 reversed", (0, 5, 11, 31, 63, 31), 3),
        ("444", (8, 4, 0, 15, 15, 15), 3),
    ):
        levels = [rgb[:, :, n].astype(int) * shifts[3 + n] // 255 for n in range(3)]
        stored = sum(level << shift for level, shift in zip(levels, shifts, strict=False))
        each = tuple(top << shift for top, shift in zip(shifts[3:], shifts, strict=False)) if compression else ()
        light = np.dstack([level / top for level, top in zip(levels, shifts[3:], strict=True)])
        data = bmp(np.asarray(stored), 16, compression=compression, masks=each)
        yield _made("BMP", ".bmp", f"16 bits, {name}, compression {compression}", data, light, near=LOSSY)
    picture, table = gray(top=15), colour(shape=(1, 16))[0]
    runs = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in picture[::-1]) + b"\0\1"
    yield _made(
        "BMP",
        ".bmp",
        "8 bits, run-length",
        bmp(picture, 8, table=table, compression=1, data=runs),
        table[picture] / 255,
    )
    runs = b"".join(b"".join(bytes([1, value << 4]) for value in row) + b"\0\0" for row in picture[::-1]) + b"\0\1"
    yield _made(
        "BMP",
        ".bmp",
        "4 bits, run-length",
        bmp(picture, 4, table=table, compression=2, data=runs),
        table[picture] / 255,
    )
    whole = bmp(rgb[:, :, ::-1], 24)
    yield _made(
        "BMP", ".bmp", "24 bits, sizes of 0", whole[:2] + bytes(4) + whole[6:34] + bytes(4) + whole[38:], unit(rgb)
    )
    yield _made("BMP", ".bmp", "24 bits, the last filler missing", whole[:-1], unit(rgb), "no end")
    yield _made("BMP", ".bmp", "24 bits, bytes behind it", whole + bytes(999), unit(rgb))


def _gif() -> Iterator[Variant]:
    for bits in range(1, 9):
        picture, table = gray(top=2**bits - 1), colour(shape=(1, 2**bits))[0]
        image = Image.fromarray(picture, "P")
        image.putpalette(table.tobytes())
        for interlaced in (0, 1):
            data = by_pillow(image, "GIF", interlace=interlaced)
            yield _made("GIF", ".gif", f"{bits} bits{', interlaced' * interlaced}", data, table[picture] / 255)
        data = by_pillow(image, "GIF", transparency=1)
        yield _made("GIF", ".gif", f"{bits} bits, a transparent colour", data, table[picture] / 255, "colour key")
        data = by_pillow(image, "GIF")
        yield _made("GIF", ".gif", f"{bits} bits, no end", data[:-1], table[picture] / 255, "no end")
        yield _made("GIF", ".gif", f"{bits} bits, palette of the frame", _local(data), table[picture] / 255)
    for shape in SMALL:
        data = by_pillow(gray(shape=shape), "GIF")
        yield _made("GIF", ".gif", f"gray, {shape[1]} x {shape[0]}", data, unit(gray(shape=shape)))
    data = by_pillow(gray(), "GIF")
    yield _made("GIF", ".gif", "87a", b"GIF87a" + data[6:], unit(gray()))
    second = Image.fromarray(255 - gray())
    data = by_pillow(Image.fromarray(gray()), "GIF", save_all=True, append_images=[second])
    yield _made("GIF", ".gif", "two frames", data, unit(gray()))


def _local(data: bytes) -> bytes:
    """With the palette of all frames as that of the first."""
    size = 3 * 2 ** ((data[10] & 7) + 1)
    at = data.index(b",", 13 + size)
    flags = bytes([data[at + 9] | 0x80 | (data[10] & 7)])
    head = data[:10] + bytes([data[10] & 0x70]) + data[11:13]
    return head + data[13 + size : at + 9] + flags + data[13 : 13 + size] + data[at + 10 :]


def _pnm() -> Iterator[Variant]:
    for top in (1, 3, 15, 100, 255, 256, 1000, 4095, 65535):
        dtype = ">u2" if top > 255 else "u1"
        for kind, picture in ((b"5", gray("uint16", top=top)), (b"6", colour("uint16", top=top))):
            data = b"P" + kind + b"\n37 29\n%d\n" % top + picture.astype(dtype).tobytes()
            ending = ".pgm" if kind == b"5" else ".ppm"
            yield _made(
                "PNM",
                ending,
                f"P{kind.decode()}, largest {top}",
                data,
                unit(picture, top),
                "odd maximum" * (top not in (255, 65535)),
            )
    body = gray().tobytes()
    for name, head in {
        "comments": b"P5 # of\n#\n37 # w\n29\n255\n",
        "one line": b"P5 37 29 255 ",
        "returns": b"P5\r37\r29\r255\r",
    }.items():
        yield _made("PNM", ".pgm", name, head + body, unit(gray()))
    for kind, picture in ((b"2", gray()), (b"3", colour())):
        data = (
            b"P"
            + kind
            + b"\n37 29\n255\n"
            + b"\n".join(b" ".join(b"%d" % n for n in row) for row in picture.reshape(29, -1))
        )
        yield _made("PNM", ".pgm", f"P{kind.decode()}, text", data, unit(picture), "text PNM")
    for shape in (SHAPE, (1, 1), (3, 9), (2, 8)):
        bits = gray(shape=shape, top=1)
        size = b"%d %d\n" % (shape[1], shape[0])
        light = 1 - unit(bits, 1)
        yield _made("PNM", ".pbm", f"P4, {shape[1]} x {shape[0]}", b"P4\n" + size + packed(bits, 1), light)
        text = b"\n".join(b" ".join(b"%d" % n for n in row) for row in bits)
        yield _made("PNM", ".pbm", f"P1, {shape[1]} x {shape[0]}", b"P1\n" + size + text, light)
        yield _made(
            "PNM",
            ".pbm",
            f"P1 without spaces, {shape[1]} x {shape[0]}",
            b"P1\n" + size + text.replace(b" ", b""),
            light,
        )
    data = b"P7\nWIDTH 37\nHEIGHT 29\nDEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE\nENDHDR\n" + body
    yield _made("PNM", ".pam", "P7", data, unit(gray()), "PAM")


def _sgi() -> Iterator[Variant]:
    for name, picture in {"gray": gray(), "RGB": colour(), "RGB with opacity": np.dstack([colour(), gray()])}.items():
        light = unit(picture if picture.ndim == 2 else picture[:, :, :3])
        yield _made("SGI", ".sgi", name, by_pillow(picture, "SGI"), light)
        yield _made("SGI", ".sgi", f"{name}, run-length", _sgi_rle(picture), light)
    deep = by_pillow(gray(), "SGI", bpc=2)
    yield _made("SGI", ".sgi", "gray, 16 bits", deep, unit(gray()), "SGI of 16 bits")


def _sgi_rle(picture: NDArray) -> bytes:
    stored = picture.reshape(*picture.shape[:2], -1)
    height, width, channels = stored.shape
    dimensions = 3 if channels > 1 else 2
    head = struct.pack(">HBBHHHHII", 474, 1, 1, dimensions, width, height, channels, 0, 255).ljust(512, b"\0")
    rows = [stored[y, :, n].tobytes() for n in range(channels) for y in range(height - 1, -1, -1)]
    coded = [bytes([0x80 | width]) + row + b"\0" for row in rows]
    starts = 512 + 8 * len(rows) + np.cumsum([0, *(len(row) for row in coded)])[:-1]
    lists = starts.astype(">u4").tobytes() + np.array([len(row) for row in coded], ">u4").tobytes()
    return head + lists + b"".join(coded)


def _webp() -> Iterator[Variant]:
    rgba = np.dstack([colour(), np.maximum(gray(), 1)])
    icc = imagecodecs.cms_profile("adobergb")
    for shape in (SHAPE, *SMALL, (16, 16)):
        rgb = colour(shape=shape)
        yield _made(
            "WebP", ".webp", f"lossless, {shape[1]} x {shape[0]}", by_pillow(rgb, "WEBP", lossless=True), unit(rgb)
        )
        yield _made(
            "WebP", ".webp", f"lossy, {shape[1]} x {shape[0]}", by_pillow(rgb, "WEBP", quality=95), None, near=LOSSY
        )
    for lossless in (False, True):
        words = {"lossless": lossless, "quality": 95}
        name = "lossless" if lossless else "lossy"
        light = unit(colour()) if lossless else None
        near = LOSSLESS if lossless else LOSSY
        yield _made("WebP", ".webp", f"{name}, opacity", by_pillow(rgba, "WEBP", exact=True, **words), light, near=near)
        yield _made(
            "WebP",
            ".webp",
            f"{name}, gray",
            by_pillow(gray(), "WEBP", **words),
            unit(gray()) if lossless else None,
            near=near,
        )
        data = by_pillow(colour(), "WEBP", icc_profile=icc, **words)
        yield _made("WebP", ".webp", f"{name}, profile", data, None, "profile", near=BY_PROFILE + near)
    for value in (3, 6):
        exif = Image.Exif()
        exif[274] = value
        data = by_pillow(colour(), "WEBP", lossless=True, exif=exif)
        yield _made("WebP", ".webp", f"orientation {value}", data, unit(colour()))


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def _jp2(picture: NDArray, *boxes: bytes, space: int | None = None, **options: Any) -> bytes:
    """With those boxes in the header, behind the colour's; of that enumerated colour space where it is given."""
    data = imagecodecs.jpeg2k_encode(picture, level=0, codecformat="jp2", mct=False, **options)
    at = data.index(b"jp2h") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    header = data[at + 8 : at + size]
    if space is not None:
        place = header.index(b"colr") + 7
        header = header[:place] + struct.pack(">I", space) + header[place + 4 :]
    return data[:at] + _box(b"jp2h", header + b"".join(boxes)) + data[at + size :]


def _jpeg2000() -> Iterator[Variant]:
    family, ending = "JPEG 2000", ".jp2"
    for bits in (1, 4, 8, 10, 12, 16):
        dtype, top = ("uint8" if bits <= 8 else "uint16"), 2**bits - 1
        for name, picture in {"gray": gray(dtype, top=top), "RGB": colour(dtype, top=top)}.items():
            for codec in ("jp2", "j2k"):
                data = imagecodecs.jpeg2k_encode(picture, level=0, codecformat=codec, bitspersample=bits, mct=False)
                special = "odd depth of JPEG 2000" if bits not in (8, 16) else ""
                yield _made(family, f".{codec}", f"{name} {bits} bits, {codec}", data, unit(picture, top), special)
    for shape in SMALL:
        picture = colour(shape=shape)
        data = imagecodecs.jpeg2k_encode(picture, level=0, codecformat="jp2")
        yield _made(family, ending, f"RGB {shape[1]} x {shape[0]}", data, unit(picture))
    for options in (
        {"tile_size": (16, 16)},
        {"irreversible": True},
        {"num_resolutions": 2},
        {"mct": 0},
        {"progression": "RPCL"},
    ):
        data = by_pillow(colour(), "JPEG2000", **options)
        yield _made(family, ending, f"RGB {options}", data, unit(colour()), near=LOSSY)
    rgba = np.dstack([colour(), gray()])
    definitions = {"opacity last": [(0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 1, 0)]}
    for name, listed in definitions.items():
        body = struct.pack(">H", len(listed)) + b"".join(struct.pack(">3H", *each) for each in listed)
        yield _made(family, ending, name, _jp2(rgba, _box(b"cdef", body)), unit(colour()))
    swapped = struct.pack(">H", 3) + b"".join(struct.pack(">3H", n, 0, 3 - n) for n in range(3))
    data = _jp2(colour()[:, :, ::-1], _box(b"cdef", swapped))
    yield _made(family, ending, "blue, green, red", data, unit(colour()), "reordered channels")
    table = colour(shape=(1, 16))[0]
    pclr = _box(b"pclr", struct.pack(">HB", 16, 3) + b"\7\7\7" + table.tobytes())
    cmap = _box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, n) for n in range(3)))
    data = _jp2(gray(top=15), pclr, cmap, space=16)
    yield _made(family, ending, "palette", data, table[gray(top=15)] / 255, "palette of JPEG 2000")
    data = _jp2(_ycc(colour()), space=18)
    yield _made(family, ending, "sYCC", data, unit(colour()), "sYCC", near=LOSSY)
    icc = imagecodecs.cms_profile("adobergb")
    profiled = imagecodecs.jpeg2k_encode(colour(), level=0, codecformat="jp2", mct=False)
    at = profiled.index(b"jp2h") - 4
    size = int.from_bytes(profiled[at : at + 4], "big")
    header = profiled[at + 8 : at + size]
    start = header.index(b"colr") - 4
    kept = header[:start] + header[start + int.from_bytes(header[start : start + 4], "big") :]
    data = profiled[:at] + _box(b"jp2h", kept + _box(b"colr", b"\2\0\0" + icc)) + profiled[at + size :]
    yield _made(family, ending, "profile", data, None, "profile", near=BY_PROFILE)


def _ycc(rgb: NDArray) -> NDArray:
    weights = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    return np.clip(np.rint(rgb @ weights.T + [0, 128, 128]), 0, 255).astype(np.uint8)


def _by_gdal() -> Iterator[Variant]:
    for driver, ending in (("NITF", ".ntf"), ("HFA", ".img")):
        for dtype in ("uint8", "uint16", "int16", "float32"):
            for channels in (1, 3, 4):
                base = gray("uint16") if channels == 1 else colour("uint16")
                if channels == 4:
                    base = np.dstack([base, gray("uint16")])
                picture = base / 65535 if dtype == "float32" else base // 257 if dtype == "uint8" else base // 3
                picture = picture.astype(dtype)
                light = unit(picture if channels == 1 else picture[:, :, :3]) if dtype in ("uint8", "uint16") else None

                def make(path: Path, driver: str = driver, picture: NDArray = picture) -> None:
                    _write(path, driver, picture)

                special = ("stretched" if light is None else "", "fourth band" * (channels == 4))
                yield _made(f"{driver}", ending, f"{dtype}, {channels} bands", make, light, *special)


def _write(path: Path, driver: str, picture: NDArray) -> None:
    bands = np.moveaxis(picture.reshape(*picture.shape[:2], -1), 2, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        size = {"width": bands.shape[2], "height": bands.shape[1], "count": len(bands), "dtype": str(bands.dtype)}
        with (
            rasterio.Env(GDAL_PAM_ENABLED="NO"),
            rasterio.open(path.with_suffix(".tif"), "w", driver="GTiff", **size) as made,
        ):
            made.write(bands)
        with rasterio.Env(GDAL_PAM_ENABLED="NO"):
            rasterio.shutil.copy(path.with_suffix(".tif"), path, driver=driver)
    path.with_suffix(".tif").unlink()
