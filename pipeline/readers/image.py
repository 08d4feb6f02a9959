"""PNG and JPEG, decoded by GDAL in bands of whole rows.

The header is parsed first, so that size and kind are known before the library allocates anything. Only GDAL's PNG and
JPEG drivers may open the file, and no sidecar file is looked for: nothing in a scan can make GDAL read elsewhere. Both
formats decode only from the top; a window above the last one starts again from the first row unless the cache of bands
still holds it, and of a damaged file everything below the damage is lost.

References
----------
PNG (W3C, third edition), 11.3; ITU-T T.81 (JPEG); ITU-T T.872, 6.5.3 (CMYK and YCCK); GDAL's JPEG and PNG drivers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import gdal
from ..errors import ScanError, ScanUnreadableError
from ..types import Reading
from . import _png
from ._conversion import Conversion, converter, rgb_of_ycc
from ._gdal import Raster
from ._jpeg import JpegHeader, is_adobe_rgb, parse_jpeg
from ._lightness import ADOBE_GAMMA, ADOBE_RGB, SRGB, Light, by_gamma, by_profile, luminance_of
from ._png import PngHeader, parse_png
from ._segmented import SegmentedReader, Source
from ._whole import is_jpeg_ls
from ._window import CACHE_BYTES, Samples, palette_table, reason, refuse_drive_errors, scaling_table

ENDINGS = (".jpeg", ".jpg", ".png")
_BAND_BYTES = 4 * 2**20
_AS_SRGB = 0.001  # of x and y: files round them
_SALVAGE_ROWS = 16  # of one row of a JPEG's blocks: what can be decoded is told from what cannot that finely

_JPEG_MAGIC, _JPEG_END = b"\xff\xd8\xff", "\xff\xd9"


def recognizes(head: bytes) -> bool:
    return head.startswith((_png.MAGIC, _JPEG_MAGIC)) and not is_jpeg_ls(head)


def open_reader(path: Path, reading: Reading) -> ImageReader:
    return ImageReader(path, reading)


class ImageReader(SegmentedReader):
    """A PNG or JPEG file, by windows. Threads take turns."""

    def __init__(self, path: Path, reading: Reading, cache_bytes: int = CACHE_BYTES) -> None:
        header: PngHeader | JpegHeader
        try:
            with path.open("rb") as file:
                is_png = file.read(len(_png.MAGIC)) == _png.MAGIC
                header = parse_png(file, reading) if is_png else parse_jpeg(file, reading)
        except OSError as error:
            refuse_drive_errors(error)
            raise ScanUnreadableError(f"cannot be read ({reason(error)}); check its permissions and disk") from error
        options = {"GDAL_JPEG_TO_RGB": "NO"} if header.channels == 4 else {}
        if isinstance(header, JpegHeader) and header.coarse:
            options["GDAL_ERROR_ON_LIBJPEG_WARNING"] = "NO"
        ending = ""
        if isinstance(header, JpegHeader) and header.endless and not header.coarse:
            # libjpeg warns of an end that is missing as of rows that are; with this it warns of rows only.
            ending = _JPEG_END
        raster = Raster(path, "PNG" if is_png else "JPEG", ending=ending, **options)
        try:
            source = _source_of(raster, header, reading)
        except Exception as error:
            raster.close()
            if isinstance(error, ScanError):
                raise
            refuse_drive_errors(error)
            raise ScanUnreadableError(f"damaged header ({reason(error)}); restore it from its source") from error
        super().__init__(path, reading, source, cache_bytes)


def _source_of(raster: Raster, header: PngHeader | JpegHeader, reading: Reading) -> Source:
    width = header.shape_yx[1]
    driver = "PNG" if isinstance(header, PngHeader) else "JPEG"
    if raster.shape_yx != header.shape_yx or raster.ask("count") != header.channels:
        raise ScanUnreadableError(
            f"damaged {driver}: header and decoder disagree on its size; restore it from its source"
        )
    if isinstance(header, PngHeader):
        samples, masked = _png_samples(raster, header), False
    else:
        masked = header.bits == 8 and bool({"all_valid", "nodata"}.isdisjoint(_mask_flags(raster)))
        samples = _jpeg_samples(header, masked=masked)
    metadata: dict[str, Any] = {"format": driver, "compression": "deflate" if driver == "PNG" else "jpeg"}
    metadata |= header.blocks.metadata(header.resolution)
    stored_bytes = width * (header.channels + masked) * (1 if header.bits <= 8 else 2)
    tall = max(1, _BAND_BYTES // stored_bytes)
    bands = tuple(range(1, header.channels + 1))
    return Source(
        info=samples.info(header.shape_yx, metadata, header.blocks.dropped),
        carried=header.blocks.carried(),
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


def _jpeg_samples(header: JpegHeader, *, masked: bool) -> Conversion:
    channels = header.channels
    dtype = "uint8" if header.bits == 8 else "uint16"
    light = _jpeg_light(header, dtype)
    table = None if header.bits == 8 else scaling_table(header.bits)

    def first(samples: NDArray) -> Samples:
        if table is not None:
            samples = table.take(samples, mode="clip")
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
    """Ink, 0 for none, of the four components of a JPEG; Adobe's are inverted, and YCCK where its segment says 2."""
    if adobe < 0:
        return stored
    ink = 255 - stored
    if adobe == 2:
        # The "RGB" behind YCC is the complement of the stored ink, which is inverted: the ink itself.
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
    # Unused entries must not turn a gray palette into colour: they are black, which is gray.
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
    """iCCP comes before sRGB, and sRGB before gAMA and cHRM (PNG, 4.3)."""
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
