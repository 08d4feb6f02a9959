"""TIFFs by how they lie in the file: depths, strips, codecs, counts, sizes, pages, what is left out."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile

from . import LOSSY, Variant, colour, gray, kinds, unit
from ._tiff_file import ASCII, BLACK, LONG, RGB, SHORT, WHITE, by_tifffile, encoded, made, packed, tiff


def variants() -> Iterator[Variant]:
    for part in (_depths, _layouts, _codecs, _missing, _small, _turned, _pages, _empty):
        yield from part()


def _depths() -> Iterator[Variant]:
    family = "depths, polarity, byte orders"
    for bits in (1, 2, 4, 6, 8, 10, 12, 14, 16):
        picture = gray("uint16", top=2**bits - 1).astype("uint8" if bits <= 8 else "uint16")
        for order in "<>":
            for photometric in (WHITE, BLACK):
                light = unit(picture, 2**bits - 1)
                data = tiff(picture, bits=bits, photometric=photometric, order=order)
                name = f"{bits} bits, {'white' if photometric == WHITE else 'black'} is zero, {order}"
                yield made(
                    family,
                    name,
                    data,
                    1 - light if photometric == WHITE else light,
                    "deep negative" * (bits > 8 and photometric == WHITE),
                )
        for planar in (False, True):
            rgb = colour("uint16", top=2**bits - 1).astype(picture.dtype)
            data = tiff(rgb, bits=bits, photometric=RGB, planar=planar, order="<" if bits % 4 else ">")
            special = "deep planar" * (planar and bits > 8)
            yield made(family, f"{bits} bits, RGB{', planar' * planar}", data, unit(rgb, 2**bits - 1), special)
    for bits in (1, 4, 8):
        picture = gray(top=2**bits - 1)
        turned = np.packbits(np.unpackbits(np.frombuffer(packed(picture, bits), np.uint8), bitorder="little"))
        data = tiff(picture, {266: (SHORT, 2)}, bits=bits).replace(packed(picture, bits), turned.tobytes())
        yield made(family, f"{bits} bits, lowest bit first", data, unit(picture, 2**bits - 1))


def _layouts() -> Iterator[Variant]:
    family = "strips, tiles, planes"
    for big in (False, True):
        for order in "<>":
            for planar in (False, True):
                for name, where in {
                    "one strip": {},
                    "strips": {"rows": 7},
                    "rows": {"rows": 1},
                    "tiles": {"tile": 16},
                }.items():
                    picture = colour("uint16" if order == ">" else "uint8")
                    words: Any = {"photometric": RGB, "bits": picture.dtype.itemsize * 8, **where}
                    data = tiff(picture, order=order, big=big, planar=planar, **words)
                    kind = f"{'Big' * big}TIFF {order}, {'planar, ' * planar}{name}"
                    yield made(family, kind, data, unit(picture), "deep planar" * (planar and order == ">"))


def _codecs() -> Iterator[Variant]:
    family = "compression, predictors"
    for compression in ("lzw", "deflate", "packbits", "lzma", "zstd", "adobe_deflate", "png", "lerc"):
        for predictor in (False, True):
            for dtype in ("uint8", "uint16"):
                for picture in (gray(dtype), colour(dtype)):
                    if predictor and compression in ("packbits", "png", "lerc"):
                        continue
                    for order in "<>" if compression in ("lzw", "deflate") and dtype == "uint16" else "<":
                        words = {"photometric": "rgb" if picture.ndim == 3 else "minisblack", "rowsperstrip": 9}
                        if compression == "lerc":
                            words["tile"] = (16, 16)
                            words.pop("rowsperstrip")
                        data = by_tifffile(
                            picture, compression=compression, predictor=predictor, byteorder=order, **words
                        )
                        name = f"{compression}{' predicted' * predictor}, {dtype} {words['photometric']} {order}"
                        special = "rare codec" if compression in ("png", "lerc") else ""
                        yield made(family, name, data, unit(picture), special)
    for compression in ("jpeg", "webp", "jpeg2000", "jpegxl", "jpegxr"):
        for picture in (gray(), colour()):
            if compression == "webp" and picture.ndim == 2:
                continue
            photometric = "rgb" if picture.ndim == 3 else "minisblack"
            options: Any = {"level": 95} if compression in ("jpeg", "webp", "jpegxr") else {}
            data = by_tifffile(picture, compression=compression, compressionargs=options, photometric=photometric)
            special = "rare codec" if compression not in ("jpeg", "webp") else ""
            yield made(family, f"{compression} {photometric}", data, None, special, near=LOSSY)


def _missing() -> Iterator[Variant]:
    family = "counts and tags that are missing, zero or wrong"
    for compression in (1, 5, 8, 32773):
        for name, where in {"one strip": {}, "strips": {"rows": 8}, "tiles": {"tile": 16}}.items():
            for uncounted in ("zero", "no"):
                without = (279, 325) if uncounted == "no" else ()
                words: Any = {"compression": compression, "uncounted": "zero", **where}
                data = tiff(gray(), without=without, **words)
                special = "counts" if compression != 1 or where else ""
                yield made(
                    family, f"{uncounted} byte counts, compression {compression}, {name}", data, unit(gray()), special
                )
    for planar in (False, True):
        data = tiff(colour(), photometric=RGB, planar=planar, rows=8, uncounted="zero")
        yield made(family, f"zero byte counts, RGB{', planar' * planar}", data, unit(colour()), "counts")
    for code, name in {
        259: "Compression",
        262: "PhotometricInterpretation",
        277: "SamplesPerPixel",
        278: "RowsPerStrip",
        284: "PlanarConfiguration",
    }.items():
        special = "no photometric" if code == 262 else ""
        yield made(family, f"gray without {name}", tiff(gray(), without=(code,)), unit(gray()), special)
        if code != 277:
            yield made(
                family, f"RGB without {name}", tiff(colour(), photometric=RGB, without=(code,)), unit(colour()), special
            )
    one = gray(top=1)
    yield made(family, "1 bit without BitsPerSample", tiff(one, bits=1, without=(258,)), unit(one, 1))
    yield made(
        family, "one BitsPerSample for three", tiff(colour(), {258: (SHORT, 8)}, photometric=RGB), unit(colour())
    )
    for rows in (0, 1000, 2**32 - 1):
        yield made(family, f"RowsPerStrip {rows}", tiff(gray(), {278: (LONG, rows)}), unit(gray()))
    for size in (1, 100, 10**6):
        yield made(family, f"byte count {size} of one strip", tiff(gray(), {279: (LONG, size)}), unit(gray()))
    as_tiles = tiff(gray(), tile=16)
    strips = tiff(gray(), rows=8)
    yield made(family, "sizes as LONG", tiff(gray(), {256: (LONG, 37), 257: (LONG, 29)}), unit(gray()))
    yield made(family, "trailing bytes", as_tiles + bytes(999), unit(gray()))
    yield made(family, "odd offset of the directory", _shifted(strips), unit(gray()))
    lzw = tiff(gray(), compression=5, rows=8)
    yield made(family, "lzw", lzw, unit(gray()))
    short = encoded(gray().tobytes(), 8)[:-4]
    data = tiff(gray(), compression=8).replace(encoded(gray().tobytes(), 8), short + b"\0" * 4)
    yield made(family, "deflate with a wrong checksum", data, unit(gray()), "checksum")


def _shifted(data: bytes) -> bytes:
    """With the directory behind an odd number of bytes more."""
    (at,) = struct.unpack_from("<I", data, 4)
    moved = data[:at] + b"\0" + data[at:]
    return moved[:4] + struct.pack("<I", at + 1) + moved[8:]


def _small() -> Iterator[Variant]:
    family = "sizes of 1"
    for shape in ((1, 1), (1, 9), (9, 1), (1, 17), (2, 3)):
        name = f"{shape[1]} x {shape[0]}"
        for bits in (1, 4, 8, 16):
            picture = gray("uint16", shape, top=2**bits - 1).astype("uint8" if bits <= 8 else "uint16")
            yield made(family, f"{name}, {bits} bits", tiff(picture, bits=bits), unit(picture, 2**bits - 1))
        for words in ({}, {"planar": True}, {"tile": 16}, {"compression": 5}, {"compression": 8, "rows": 1}):
            data = tiff(colour(shape=shape), photometric=RGB, **words)  # type: ignore[arg-type]
            yield made(family, f"{name}, RGB {words or ''}", data, unit(colour(shape=shape)))


def _turned() -> Iterator[Variant]:
    family = "orientation"
    for value in range(10):
        special = "turned" if value not in (0, 1, 9) else ""
        yield made(
            family, f"RGB, {value}", tiff(colour(), {274: (SHORT, value)}, photometric=RGB), unit(colour()), special
        )
        yield made(family, f"gray tiles, {value}", tiff(gray(), {274: (SHORT, value)}, tile=16), unit(gray()), special)


def _pages() -> Iterator[Variant]:
    family = "pages, copies, masks"
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(colour(), photometric="rgb", metadata=None)
        writer.write(colour()[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    yield made(family, "smaller copy second", file.getvalue(), unit(colour()))
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(colour()[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        writer.write(colour(), photometric="rgb", metadata=None)
    yield made(family, "smaller copy first", file.getvalue(), unit(colour()), "smaller copy first")
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(colour(), photometric="rgb", metadata=None)
        writer.write(255 - colour(), photometric="rgb", metadata=None)
    yield made(family, "two pages", file.getvalue(), unit(colour()))
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(colour(), photometric="rgb", subifds=1, metadata=None)
        writer.write(colour()[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    yield made(family, "smaller copy in a sub-directory", file.getvalue(), unit(colour()))


def _empty() -> Iterator[Variant]:
    family = "no data"
    for tiled in (False, True):
        for placed in (False, True):
            for compress in ("none", "deflate"):
                if not tiled and not placed:
                    continue
                name = f"{'tiles' if tiled else 'strips'} left out{', placed' * placed}, {compress}"

                def make(path: Path, tiled: bool = tiled, placed: bool = placed, compress: str = compress) -> None:
                    _sparse(path, tiled, placed, compress)

                light = np.zeros((64, 64))
                light[32:] = unit(gray(shape=(32, 64)))
                yield Variant(f"TIFF: {family}", name, make, ".tif", written=light, kinds=kinds("sparse"))
    for nodata in ("0", "255", "nan", "9"):
        data = tiff(gray(), {42113: (ASCII, nodata.encode() + b"\0")})
        yield made(family, f"GDAL_NODATA {nodata}", data, unit(gray()))


def _sparse(path: Path, tiled: bool, placed: bool, compress: str) -> None:
    words: Any = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": "uint8", "sparse_ok": True}
    words |= {"tiled": True, "blockxsize": 32} if tiled else {}
    words |= {"crs": "EPSG:3857", "transform": rasterio.Affine(2, 0, 0, 0, -2, 0)} if placed else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", compress=compress, blockysize=32, **words) as dataset:
            dataset.write(gray(shape=(32, 64)), 1, window=rasterio.windows.Window(0, 32, 64, 32))
