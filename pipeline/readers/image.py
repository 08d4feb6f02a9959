"""PNG and JPEG, decoded by GDAL in bands of whole rows.

The header is parsed first, so that size and kind are known before the library allocates anything. Only GDAL's PNG and
JPEG drivers may open the file, and GDAL looks for no sidecar files: nothing in a scan can make it read elsewhere. Both
formats decode only from the top: a window above the previous one starts again from the first row unless the cache still
holds it, and everything below damage is lost. A file without its end marker or end chunk counts as complete if all of
its rows are there: some phones omit the marker, and tools that copy sectors cut it off.

References
----------
PNG (W3C, third edition), 11.3; ITU-T T.81 (JPEG); ITU-T T.872, 6.5.3 (CMYK and YCCK); GDAL's JPEG and PNG drivers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanDamagedError, ScanError, ScanUnreachableError, ScanUnreadableError
from pipeline.readers import _png
from pipeline.readers._base import CACHE_BYTES, Samples, palette_table, reason, refuse_drive_errors, scaling_table
from pipeline.readers._codec_headers import is_jpeg_ls
from pipeline.readers._conversion import Conversion, converter, rgb_of_ycc
from pipeline.readers._fingerprint_cache import FingerprintCache
from pipeline.readers._gdal import Raster
from pipeline.readers._jpeg import JpegHeader, is_adobe_rgb, parse_jpeg
from pipeline.readers._lightness import ADOBE_GAMMA, ADOBE_RGB, SRGB, Light, by_gamma, by_profile, luminance_of
from pipeline.readers._metadata_blocks import WITHOUT_END
from pipeline.readers._png import PngHeader, parse_png
from pipeline.readers._region_reader import SegmentedReader, Source
from pipeline.support import gdal
from pipeline.types import ReadOptions

_BAND_BYTES = 4 * 2**20
_AS_SRGB = 0.001  # tolerance for x and y, which files round
_SALVAGE_ROWS = 16  # one row of a JPEG's blocks: how finely salvage separates readable from unreadable rows

_JPEG_MAGIC, _JPEG_END = b"\xff\xd8\xff", "\xff\xd9"
_WHOLE: FingerprintCache[bool] = FingerprintCache(256)  # for files without an end: whether all rows are there


def recognizes(head: bytes) -> bool:
    return head.startswith((_png.MAGIC, _JPEG_MAGIC)) and not is_jpeg_ls(head)


def open_reader(path: Path, reading: ReadOptions) -> ImageReader:
    return ImageReader(path, reading)


class ImageReader(SegmentedReader):
    """A PNG or JPEG file, read by windows. Threads take turns."""

    def __init__(self, path: Path, reading: ReadOptions, cache_bytes: int = CACHE_BYTES) -> None:
        header: PngHeader | JpegHeader
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                is_png = file.read(len(_png.MAGIC)) == _png.MAGIC
                header = parse_png(file, reading) if is_png else parse_jpeg(file, reading)
        except OSError as error:
            refuse_drive_errors(error)
            raise ScanUnreadableError(f"cannot be read ({reason(error)}); check its permissions and disk") from error
        raster = _ended(path, header, status, reading) if header.endless else _opened(path, header)
        try:
            source = _source_of(raster, header, reading)
        except Exception as error:
            raster.close()
            if isinstance(error, ScanError):
                raise
            refuse_drive_errors(error)
            raise ScanDamagedError(f"damaged header ({reason(error)}); restore it from its source") from error
        super().__init__(path, reading, source, cache_bytes)


def _opened(path: Path, header: PngHeader | JpegHeader, ending: str = "", **options: str) -> Raster:
    """Open the file so that the driver does not convert ink or RGB to RGB: newer releases of libjpeg go by the
    components' names before the file's own declaration."""
    if isinstance(header, PngHeader):
        return Raster(path, "PNG", ending=ending, **options)
    stored = options | {"GDAL_JPEG_TO_RGB": "NO"}
    if header.channels == 4:
        return Raster(path, "JPEG", ending=ending, **stored)
    raster = Raster(path, "JPEG", ending=ending, **options)
    if header.is_ycc or not _is_made_rgb(raster):
        return raster
    raster.close()
    return Raster(path, "JPEG", ending=ending, **stored)


def _is_made_rgb(raster: Raster) -> bool:
    return bool(raster.ask("tags", ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE") == "YCbCr")


def _ended(path: Path, header: PngHeader | JpegHeader, status: os.stat_result, reading: ReadOptions) -> Raster:
    """Open a file without its end, with the end appended: libjpeg and libpng then report missing rows and nothing else.
    To find out whether rows are missing takes one pass through the picture, before the run is planned.

    Raises
    ------
    ScanUnreadableError : rows are missing, and salvage is off
    """
    ending = header.ending if isinstance(header, PngHeader) else _JPEG_END
    begun = isinstance(header, PngHeader) or header.begun
    if begun and _WHOLE.get(status, ending, lambda: _is_whole(path, header, ending)):
        header.blocks.drop(WITHOUT_END)
        return _opened(path, header, ending)
    if not reading.salvage:
        name = "PNG has no end chunk" if isinstance(header, PngHeader) else "JPEG has no end marker"
        raise ScanDamagedError(f"cut off: the {name}, and rows of it are missing; copy it again from its source")
    if isinstance(header, JpegHeader) and header.coarse:
        header.blocks.drop("detail of the lost end of a progressive JPEG")
        return _opened(path, header, GDAL_ERROR_ON_LIBJPEG_WARNING="NO")
    return _opened(path, header, ending)


def _is_whole(path: Path, header: PngHeader | JpegHeader, ending: str) -> bool:
    (height, width), raster = header.shape_yx, None
    tall = max(1, _BAND_BYTES // width)
    try:
        raster = _opened(path, header, ending)
        if raster.shape_yx != header.shape_yx:
            return False
        for top in range(0, height, tall):
            raster.read((1,), range(top, min(top + tall, height)), range(width))
    except Exception as error:
        refuse_drive_errors(error)
        if isinstance(error, ScanUnreachableError):
            raise
        return False
    finally:
        if raster is not None:
            raster.close()
    return True


def _source_of(raster: Raster, header: PngHeader | JpegHeader, reading: ReadOptions) -> Source:
    width = header.shape_yx[1]
    driver = "PNG" if isinstance(header, PngHeader) else "JPEG"
    if raster.shape_yx != header.shape_yx or raster.ask("count") != header.channels:
        raise ScanDamagedError(f"damaged {driver}: header and decoder disagree on its size; restore it from its source")
    if isinstance(header, PngHeader):
        samples, masked = _png_samples(raster, header), False
    else:
        masked = header.bits == 8 and bool({"all_valid", "nodata"}.isdisjoint(_mask_flags(raster)))
        samples = _jpeg_samples(header, masked=masked, ycc=header.is_ycc and not _is_made_rgb(raster))
    metadata: dict[str, Any] = {"format": driver, "compression": "deflate" if driver == "PNG" else "jpeg"}
    metadata |= header.blocks.metadata(header.resolution)
    stored_bytes = width * (header.channels + masked) * (1 if header.bits <= 8 else 2)
    tall = max(1, _BAND_BYTES // stored_bytes)
    bands = tuple(range(1, header.channels + 1))
    return Source(
        info=samples.info(header.shape_yx, metadata, header.blocks.dropped),
        embedded=header.blocks.embedded(),
        segment_yx=(min(tall, _SALVAGE_ROWS) if reading.salvage else tall, width),
        decode=lambda rows, columns: raster.read(bands, rows, columns, mask=masked),
        close=raster.close,
        convert=samples.convert,
        opacity=samples.opacity,
        sequential=True,
        decoder_bytes=gdal.CACHE_BYTES + header.whole_bytes,
    )


def _mask_flags(raster: Raster) -> set[str]:
    return {flag.name for band in raster.ask("mask_flag_enums") for flag in band}


def _jpeg_samples(header: JpegHeader, *, masked: bool, ycc: bool) -> Conversion:
    """Conversion of a JPEG's samples. ``ycc``: they are luma and chroma, which the driver takes for RGB."""
    channels = header.channels
    dtype = "uint8" if header.bits == 8 else "uint16"
    light = _jpeg_light(header, dtype)
    table = None if header.bits == 8 else scaling_table(header.bits)

    def first(samples: NDArray) -> Samples:
        if table is not None:
            samples = table.take(samples, mode="clip")
        if ycc:
            samples = rgb_of_ycc(samples)
        return _ink(samples, header.adobe) if channels == 4 else samples

    opacity = (lambda stored: stored[:, :, -1]) if masked else None
    return Conversion(1 if channels == 1 else 3, dtype, converter(channels, light, first), light, opacity=opacity)


def _jpeg_light(header: JpegHeader, dtype: str) -> Light:
    parts = header.blocks.parts
    if "icc" not in parts and header.channels != 4 and is_adobe_rgb(parts.get("exif", b"")):
        return by_gamma(
            ADOBE_GAMMA, dtype, ADOBE_RGB if header.channels == 3 else (), "as Adobe RGB, by its EXIF (R03)"
        )
    return by_profile(parts.get("icc", b""), header.channels, dtype)


def _ink(stored: NDArray, adobe: int) -> Samples:
    """The four components of a JPEG as ink, 0 for none.

    They are stored inverted, as Adobe writes them, and as YCCK if Adobe's segment says 2. Without the segment they are
    taken as inverted too: no standard says so, but every other program reads and writes them that way.
    """
    ink = 255 - stored
    if adobe == 2:
        # The "RGB" in YCC is the complement of the stored ink. That is stored inverted, so the RGB is the ink itself.
        ink[:, :, :3] = rgb_of_ycc(stored[:, :, :3])
    return ink


def _png_samples(raster: Raster, header: PngHeader) -> Conversion:
    if header.palette:
        return _palette_samples(raster, header)
    dtype = "uint8" if header.bits <= 8 else "uint16"
    channels = 3 if header.channels >= 3 else 1
    light = _png_light(header, channels, dtype)
    table = None if header.bits in (8, 16) else scaling_table(header.bits)
    first = None if table is None else partial(np.take, table, mode="clip")
    opacity = _png_opacity(header, channels, dtype)
    return Conversion(channels, dtype, converter(channels, light, first), light, opacity=opacity)


def _png_opacity(header: PngHeader, channels: int, dtype: str) -> Callable[[NDArray], Samples] | None:
    if header.channels in (2, 4):
        return lambda stored: stored[:, :, -1]
    if len(header.transparent) < 2 * channels:
        return None
    # Only as many bits of each value count as the samples have (11.3.1.1).
    values = np.frombuffer(header.transparent[: 2 * channels], ">u2") & (2**header.bits - 1)
    top = np.iinfo(dtype).max
    return lambda stored: np.where((stored == values).all(axis=2), 0, top).astype(dtype)


def _palette_samples(raster: Raster, header: PngHeader) -> Conversion:
    colours = np.zeros((2**header.bits, 3), dtype=np.uint8)
    for index, colour in raster.ask("colormap", 1).items():
        colours[index] = colour[:3]
    light = _png_light(header, 3, "uint8")
    # Unused entries must not make a gray palette coloured: set them to black, which is gray.
    table = light.convert(colours[None])[0] if light.convert else palette_table(colours)
    opacity = None
    if header.transparent:
        alpha = np.full(256, 255, np.uint8)
        alpha[: len(header.transparent)] = np.frombuffer(header.transparent[:256], np.uint8)
        opacity = lambda stored: alpha.take(stored[:, :, 0])  # noqa: E731
    channels = 3 if table.ndim == 2 else 1
    convert = lambda stored: table.take(stored[:, :, 0], axis=0, mode="clip")  # noqa: E731
    return Conversion(channels, "uint8", convert, light, opacity=opacity)


def _png_light(header: PngHeader, channels: int, dtype: str) -> Light:
    """The conversion to lightness: iCCP takes precedence over sRGB, and sRGB over gAMA and cHRM (PNG, 4.3)."""
    if "icc" in header.blocks.parts:
        return by_profile(header.blocks.parts["icc"], channels, dtype)
    if header.srgb:
        return Light()
    others = channels == 3 and bool(header.primaries) and not np.allclose(header.primaries, SRGB, atol=_AS_SRGB)
    if header.gamma is None:
        return Light(dropped="cHRM chunk (without gAMA; the samples are taken as sRGB)" if others else "")
    light = by_gamma(header.gamma, dtype, header.primaries if others else ())
    if others and luminance_of(header.primaries) is None:
        return replace(light, dropped="cHRM chunk (of colours that cannot be; taken as sRGB's)")
    return light
