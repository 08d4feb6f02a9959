"""PNG and JPEG, decoded by GDAL in bands of whole rows.

The header is parsed here first, so that size and kind are known before the library allocates anything. Only GDAL's PNG
and JPEG drivers may open the file, and no sidecar file is looked for: nothing in a scan can make GDAL read elsewhere.
Both formats decode only from the top; a window above the last one starts again from the first row unless the cache of
bands still holds it.

References
----------
PNG (W3C, third edition), 5 and 11; ITU-T T.81 (JPEG), B.1 and B.2; GDAL configuration options of the JPEG driver.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import rasterio
from rasterio.windows import Window

from ..errors import ScanError, ScanUnreadableError, ScanUnsupportedError
from ..types import Reading, ScanInfo
from ._window import (
    CACHE_BYTES,
    PROFILE_DROPPED,
    Samples,
    SegmentCache,
    WindowReader,
    check_size,
    palette_table,
    reason,
    scaling_table,
)

ENDINGS = (".jpeg", ".jpg", ".png")
WHOLE_LIMIT_BYTES = 2**31
_BAND_BYTES = 4 * 2**20

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_MAGIC = b"\xff\xd8\xff"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}

_GDAL_OPTIONS = {
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # libjpeg fills what is missing with gray and only warns.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    # `_parse_jpeg` has its own, larger bound for progressive files.
    "GDAL_ALLOW_LARGE_LIBJPEG_MEM_ALLOC": "YES",
}
# Filters of `warnings` are global to the process; one thread at a time may exchange them.
_WARNINGS_LOCK = threading.Lock()
# GDAL's messages arrive as exceptions too; logged, they would reach the user a second time.
logging.getLogger("rasterio").setLevel(logging.CRITICAL + 1)


def recognizes(head: bytes) -> bool:
    return head.startswith((_PNG_MAGIC, _JPEG_MAGIC))


def open_reader(path: Path, reading: Reading) -> ImageReader:
    return ImageReader(path, reading)


@dataclass(frozen=True)
class _Header:
    """What the first bytes declare."""

    driver: str
    shape_yx: tuple[int, int]
    stored_channels: int
    bits: int
    palette: bool = False
    alpha: bool = False
    resolution: tuple[float, float, str] | None = None


class ImageReader(WindowReader):
    """A PNG or JPEG file, by windows. Threads take turns."""

    def __init__(self, path: Path, reading: Reading, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__(path, reading)
        self._lock = threading.Lock()
        self._cache = SegmentCache(cache_bytes)
        try:
            with path.open("rb") as file:
                header = _parse_header(file, reading.limit_pixels)
        except OSError as error:
            raise ScanUnreadableError(f"cannot be read ({reason(error)}); check its permissions and disk") from error
        try:
            with _WARNINGS_LOCK, warnings.catch_warnings(), rasterio.Env(**_GDAL_OPTIONS):
                warnings.simplefilter("ignore")  # NotGeoreferencedWarning: a scan has no place on Earth
                self._dataset = rasterio.open(path.absolute(), driver=header.driver)
        except Exception as error:
            raise ScanUnreadableError(
                f"damaged {header.driver} ({reason(error)}); restore it from its source"
            ) from error
        try:
            self._describe(header)
        except ScanError:
            self._dataset.close()
            raise
        except Exception as error:
            self._dataset.close()
            raise ScanUnreadableError(
                f"damaged {header.driver} ({reason(error)}); restore it from its source"
            ) from error

    def _describe(self, header: _Header) -> None:
        dataset = self._dataset
        bands = header.stored_channels
        if (dataset.height, dataset.width) != header.shape_yx or dataset.count != bands:
            raise ScanUnreadableError(
                f"damaged {header.driver}: header and decoder disagree on its size; restore it from its source"
            )
        self._keep = 3 if bands >= 3 else 1
        self._table: Samples | None = None
        if header.palette:
            with rasterio.Env(**_GDAL_OPTIONS):
                colours = dataset.colormap(1)
            table = np.zeros((2**header.bits, 3), dtype=np.uint8)
            for index, colour in colours.items():
                table[index] = colour[:3]
            # Unused entries must not turn a gray palette into colour: they are black, which is gray.
            self._table = palette_table(table)
        elif header.bits not in (8, 16):
            self._table = scaling_table(header.bits)
        coloured = self._keep == 3 or (self._table is not None and self._table.ndim == 2)
        self._stored_dtype = np.dtype(np.uint8 if header.bits <= 8 else np.uint16)
        self._info = ScanInfo(
            shape_yx=header.shape_yx,
            channels=3 if coloured else 1,
            dtype=self._stored_dtype.name,
            metadata=_metadata_of(header, dataset),
        )
        row_bytes = header.shape_yx[1] * self._keep * self._stored_dtype.itemsize
        self._band_rows = max(1, _BAND_BYTES // row_bytes)

    @property
    def info(self) -> ScanInfo:
        return self._info

    def _close(self) -> None:
        with self._lock:
            self._cache.clear()
            self._dataset.close()

    def _read(self, rows: range, columns: range) -> Samples:
        tall = self._band_rows
        stored = np.empty((len(rows), len(columns), self._keep), dtype=self._stored_dtype)
        for band in range(rows.start // tall, (rows.stop - 1) // tall + 1):
            y0, y1 = max(rows.start, band * tall), min(rows.stop, band * tall + tall)
            part = self._band(band)[y0 - band * tall : y1 - band * tall, columns.start : columns.stop]
            stored[y0 - rows.start : y1 - rows.start] = part
        samples = stored[:, :, 0] if self._keep == 1 else stored
        return samples if self._table is None else self._table.take(samples, axis=0, mode="clip")

    def _band(self, band: int) -> Samples:
        # The whole look-up is locked, not just the decoding: threads that wait for one band must not each decode it,
        # for every decoder that goes back starts from the first row.
        with self._lock:
            return self._cache.get(band, lambda: self._decoded(band))

    def _decoded(self, band: int) -> Samples:
        """(h, width, channels) of one band of rows."""
        height, width = self._info.shape_yx
        top = band * self._band_rows
        window = Window(0, top, width, min(self._band_rows, height - top))
        with rasterio.Env(**_GDAL_OPTIONS):
            planes = self._dataset.read(list(range(1, self._keep + 1)), window=window)
        return np.ascontiguousarray(np.moveaxis(planes, 0, 2))


def _parse_header(file: BinaryIO, limit_pixels: int) -> _Header:
    if file.read(2) == _JPEG_MAGIC[:2]:
        return _parse_jpeg(file, limit_pixels)
    file.seek(len(_PNG_MAGIC))
    return _parse_png(file, limit_pixels)


def _parse_png(file: BinaryIO, limit_pixels: int) -> _Header:
    first = file.read(25)
    if len(first) < 25 or first[:8] != b"\0\0\0\rIHDR":
        raise ScanUnreadableError("damaged PNG: no header chunk; restore it from its source")
    width, height = int.from_bytes(first[8:12], "big"), int.from_bytes(first[12:16], "big")
    bits, colour, interlaced = first[16], first[17], first[20]
    if bits not in _PNG_DEPTHS.get(colour, ()):
        raise ScanUnreadableError(f"damaged PNG: colour type {colour} with {bits} bits; restore it from its source")
    check_size((height, width), limit_pixels)
    channels = _PNG_CHANNELS[colour]
    if interlaced and height * width * channels * -(-bits // 8) > WHOLE_LIMIT_BYTES:
        raise ScanUnsupportedError(
            f"an interlaced PNG of {width} x {height} pixels, which must be decoded at once; save it without"
        )
    transparent, resolution = False, None
    while (head := file.read(8))[4:] != b"IEND":
        length = int.from_bytes(head[:4], "big")
        at = file.tell()
        if len(head) < 8 or file.seek(0, 2) < at + length + 4:
            raise ScanUnreadableError("cut off: the PNG has no end chunk; copy it again from its source")
        transparent |= head[4:] == b"tRNS"
        file.seek(at)
        if head[4:] == b"pHYs" and length == 9:
            per_metre = file.read(9)
            x, y = int.from_bytes(per_metre[:4], "big"), int.from_bytes(per_metre[4:8], "big")
            if per_metre[8] == 1 and x and y:
                resolution = (x / 100, y / 100, "cm")
        file.seek(at + length + 4)
    alpha = colour >= 4 or transparent
    return _Header("PNG", (height, width), channels, bits, palette=colour == 3, alpha=alpha, resolution=resolution)


def _parse_jpeg(file: BinaryIO, limit_pixels: int) -> _Header:
    resolution = None
    for marker, segment in _jpeg_segments(file):
        if marker == 0xE0 and segment[:5] == b"JFIF\0" and len(segment) >= 12:
            unit = {1: "inch", 2: "cm"}.get(segment[7])
            x, y = int.from_bytes(segment[8:10], "big"), int.from_bytes(segment[10:12], "big")
            if unit and x and y:
                resolution = (float(x), float(y), unit)
        if not 0xC0 <= marker <= 0xCF or marker in (0xC4, 0xC8, 0xCC):
            continue
        if len(segment) < 6:
            break
        bits, channels = segment[0], segment[5]
        height, width = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
        if marker not in (0xC0, 0xC1, 0xC2):
            raise ScanUnsupportedError("a lossless or arithmetic-coded JPEG, which is not handled; convert it to TIFF")
        if channels == 4:
            raise ScanUnsupportedError("a CMYK JPEG, which is not handled; convert it to 8-bit gray or RGB")
        if bits != 8 or channels not in (1, 3):
            raise ScanUnsupportedError(
                f"a JPEG of {channels} channels of {bits} bits, which is not handled; convert it to 8-bit gray or RGB"
            )
        check_size((height, width), limit_pixels)
        if marker == 0xC2 and height * width * channels * 2 > WHOLE_LIMIT_BYTES:
            raise ScanUnsupportedError(
                f"a progressive JPEG of {width} x {height} pixels, which must be decoded at once; save it as baseline"
            )
        _check_jpeg_end(file)
        return _Header("JPEG", (height, width), channels, bits, resolution=resolution)
    raise ScanUnreadableError("damaged JPEG: no frame header; restore it from its source")


def _jpeg_segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Marker codes and their segments, up to the first scan."""
    while file.read(1) == b"\xff":
        marker = 0xFF
        while marker == 0xFF:  # fill bytes
            marker = (file.read(1) or b"\0")[0]
        if marker in (0x00, 0xD9, 0xDA):
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        length = int.from_bytes(file.read(2), "big")
        segment = file.read(max(0, length - 2))
        if length < 2 or len(segment) < length - 2:
            return
        yield marker, segment


def _check_jpeg_end(file: BinaryIO, chunk_bytes: int = 2**20) -> None:
    """Look for the end-of-image marker, from the end of the file; coded data cannot contain those two bytes."""
    start = file.tell()
    stop = file.seek(0, 2)
    after = b""
    while stop > start:
        begin = max(start, stop - chunk_bytes)
        file.seek(begin)
        chunk = file.read(stop - begin)
        if b"\xff\xd9" in chunk + after:
            return
        after, stop = chunk[:1], begin
    raise ScanUnreadableError("cut off: the JPEG has no end marker; copy it again from its source")


def _metadata_of(header: _Header, dataset: Any) -> dict[str, Any]:
    with rasterio.Env(**_GDAL_OPTIONS):
        tags = dataset.tags()
        has_profile = "SOURCE_ICC_PROFILE" in dataset.tags(ns="COLOR_PROFILE")
    metadata: dict[str, Any] = {
        "format": header.driver,
        "compression": "jpeg" if header.driver == "JPEG" else "deflate",
    }
    pair = [_number(tags.get(key)) for key in ("EXIF_XResolution", "EXIF_YResolution")]
    if header.resolution:
        metadata["resolution"] = list(header.resolution)
    elif all(pair):
        unit = _number(tags.get("EXIF_ResolutionUnit")) or 2
        metadata["resolution"] = [*pair, {2: "inch", 3: "cm"}.get(int(unit), "none")]
    orientation = _number(tags.get("EXIF_Orientation"))
    if orientation and orientation in range(1, 9):
        metadata["orientation"] = int(orientation)
    if dropped := ["alpha channel"] * header.alpha + [PROFILE_DROPPED] * has_profile:
        metadata["dropped"] = dropped
    return metadata


def _number(text: str | None) -> float | None:
    """The leading positive number in texts such as ``72``, ``(300)`` or ``2 (pixels/inch)``."""
    first = (text or "").strip("( ").split(" ")[0].rstrip(")")
    try:
        value = float(first)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
