"""JPEG 2000, WebP, GIF, BMP, PNM, SGI, NITF and Erdas Imagine: formats that GDAL decodes from the file alone.

A format is here only if its driver reads nothing but the file. Left out, because they refer to other files or
addresses: VRT, WMS, MRF, ERS, PCIDSK (its channels may lie in any other file), headers beside their data (ENVI, EHdr).
The header is parsed first (`_raster_headers`), so the size and the largest unit of decoding are known before GDAL
allocates.

Samples of 8 and 16 bits are kept. Others are stretched linearly to 16 bits: floats between 0 and 1 from 0 to 1, all
else from the smallest to the largest sample, which takes one pass over the picture when it is first opened.

References
----------
GDAL raster drivers (gdal.org/drivers/raster); the formats' specifications are in `_raster_headers`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanDamagedError, ScanError, ScanUnreachableError, ScanUnreadableError, ScanUnsupportedError
from pipeline.metadata.model import Georeference
from pipeline.readers import _raster_headers
from pipeline.readers._base import CACHE_BYTES, Samples, check_size, palette_table, reason, refuse_drive_errors
from pipeline.readers._conversion import Conversion, stretched
from pipeline.readers._fingerprint_cache import FingerprintCache
from pipeline.readers._gdal import Raster
from pipeline.readers._lightness import Stretch, by_profile, opacity_of
from pipeline.readers._metadata_blocks import printable
from pipeline.readers._raster_headers import Declared
from pipeline.readers._region_reader import SegmentedReader, Source
from pipeline.support import gdal
from pipeline.types import ReadOptions, ScanInfo

WHOLE_LIMIT_BYTES = 2**31
_BAND_BYTES = 4 * 2**20
_SALVAGE_ROWS = 16  # how finely salvage separates readable from unreadable rows, if the header does not tell
_BLOCK_COPIES = 2  # copies of a block while it is decoded
_STRETCHES: FingerprintCache[tuple[Stretch | None]] = FingerprintCache(256)
_RGB = "red", "green", "blue"
_ROW_OF_BLOCKS_BYTES = 2**28  # a cache that holds less than a row of blocks decodes each of them many times


@dataclass(frozen=True)
class _Format:
    name: str
    driver: str
    declared: Callable[[BinaryIO, bool], Declared]
    magic: tuple[bytes, ...]
    at: int = 0
    placed: bool = False  # may hold a georeference; other drivers are not asked, because some make one up

    def matches(self, head: bytes) -> bool:
        return head[self.at :].startswith(self.magic)


_FORMATS = (
    _Format(
        "JPEG 2000",
        "JP2OpenJPEG",
        _raster_headers.jpeg2000,
        (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
        placed=True,
    ),
    _Format("WebP", "WEBP", _raster_headers.webp, (b"WEBPVP8",), at=8),
    _Format("GIF", "GIF", _raster_headers.gif, (b"GIF87a", b"GIF89a")),
    _Format("BMP", "BMP", _raster_headers.bmp, (b"BM",)),
    _Format(
        "PNM",
        "PNM",
        _raster_headers.pnm,
        tuple(b"P" + n + s for n in (b"5", b"6") for s in (b"\n", b" ", b"\r", b"\t")),
    ),
    _Format("SGI", "SGI", _raster_headers.sgi, (b"\x01\xda\0\1", b"\x01\xda\1\1", b"\x01\xda\0\2", b"\x01\xda\1\2")),
    _Format("NITF", "NITF", _raster_headers.nitf, (b"NITF02.", b"NSIF01."), placed=True),
    _Format("Erdas Imagine", "HFA", _raster_headers.hfa, (b"EHFA_HEADER_TAG",), placed=True),
)


def recognizes(head: bytes) -> bool:
    return any(known.matches(head) for known in _FORMATS)


def open_reader(path: Path, reading: ReadOptions) -> SegmentedReader:
    """Open the file with its driver. Raises as :func:`pipeline.readers.open_scan`; messages lack the path."""
    try:
        with path.open("rb") as file:
            head = file.read(32)
            known = next(each for each in _FORMATS if each.matches(head))
            declared = known.declared(file, reading.salvage)
            status = os.fstat(file.fileno())
    except OSError as error:
        refuse_drive_errors(error)
        raise ScanUnreadableError(f"cannot be read ({reason(error)}); check its permissions and disk") from error
    if declared.shape_yx is not None:
        check_size(declared.shape_yx, reading.limit_pixels)
    if declared.whole_bytes > WHOLE_LIMIT_BYTES:
        raise ScanUnsupportedError(
            f"a {known.name} that takes {declared.whole_bytes} bytes and must be decoded at once; save it as TIFF"
        )
    raster = Raster(path, known.driver, ending=declared.ending)
    try:
        check_size(raster.shape_yx, reading.limit_pixels)
        if declared.shape_yx not in (None, raster.shape_yx):
            raise ScanDamagedError(
                f"damaged {known.name}: header and decoder disagree on its size; restore it from its source"
            )
        source, cache_bytes = _source_of(raster, known, declared, status, reading.salvage)
    except ScanError:
        raster.close()
        raise
    except Exception as error:
        raster.close()
        refuse_drive_errors(error)
        raise ScanDamagedError(f"damaged {known.name} ({reason(error)}); restore it from its source") from error
    return SegmentedReader(path, reading, source, cache_bytes)


@dataclass(frozen=True)
class _Bands:
    """``order``: numbers of the 1 or 3 bands to keep. ``alpha``: number of the alpha band, or 0."""

    order: tuple[int, ...]
    alpha: int
    palette: bool
    dropped: tuple[str, ...] = ()

    @property
    def colour(self) -> int:
        return len(self.order)

    @property
    def read(self) -> tuple[int, ...]:
        return (*self.order, *((self.alpha,) if self.alpha else ()))


def _bands_of(raster: Raster, declared: Declared) -> _Bands:
    """The bands by the file's own description, in which they may come in any order; else the first ones."""
    meanings = [meaning.name for meaning in raster.ask("colorinterp")]
    alpha = meanings.index("alpha") + 1 if "alpha" in meanings else 0
    others = [number for number in range(1, len(meanings) + 1) if number != alpha]
    if not 1 <= len(others) <= 4:
        raise ScanUnsupportedError(f"{len(meanings)} channels, which is not handled; convert it to gray or RGB")
    if "black" in meanings:
        raise ScanUnsupportedError("CMYK, which is not handled here; convert it to gray or RGB")
    order = others[: 3 if len(others) >= 3 else 1]
    if set(_RGB) <= set(meanings):
        order = [meanings.index(name) + 1 for name in _RGB]
    if declared.order:
        order = [order[at] for at in declared.order]
    extra = len(others) - len(order)
    dropped = (f"{extra} extra channel{'s' * (extra > 1)}",) if extra else ()
    return _Bands(tuple(order), alpha, meanings[0] == "palette", dropped)


def _source_of(
    raster: Raster, known: _Format, declared: Declared, status: os.stat_result, salvage: bool
) -> tuple[Source, int]:
    bands = _bands_of(raster, declared)
    dtypes = set(raster.ask("dtypes"))
    if len(dtypes) != 1 or "complex" in (stored := dtypes.pop()):
        raise ScanUnsupportedError("complex samples, or of several types; convert it to 8- or 16-bit gray or RGB")
    if bands.palette and stored not in ("uint8", "uint16"):
        raise ScanUnsupportedError(f"a palette with samples of {stored}; convert it to RGB")
    band_bytes = len(bands.read) * np.dtype(stored).itemsize
    segment_yx, cache_bytes = _segments_of(raster, band_bytes, _salvage_rows(declared) if salvage else 0)
    height, width = raster.shape_yx
    first, last = declared.present or (0, height)

    def decode(rows: range, columns: range) -> NDArray:
        if rows.start < first or rows.stop > last:
            raise ScanDamagedError(
                f"cut off: of {height} rows the file holds {last - first}; copy it again from its source"
            )
        return raster.read(bands.read, rows, columns)

    def every() -> Any:
        tall, wide = segment_yx
        for y in range(0, height, tall):
            for x in range(0, width, wide):
                try:
                    part = decode(range(y, min(y + tall, height)), range(x, min(x + wide, width)))
                except Exception as error:
                    refuse_drive_errors(error)
                    if not salvage or isinstance(error, ScanUnreachableError):
                        raise
                    continue
                yield part[:, :, : bands.colour]

    def stretch_of(top: int, nodata: float | None) -> Stretch | None:
        found = _STRETCHES.get(status, (top, salvage), lambda: (Stretch.of(stored, top, every, nodata),))
        return found[0]

    samples = _samples_of(raster, declared, bands, stored, stretch_of)
    embedded = declared.blocks.embedded(_place_of(raster) if known.placed else None)
    info = _info_of(raster, known, declared, bands, samples)
    tall, wide = raster.ask("block_shapes")[0]
    block_bytes = tall * wide * len(bands.read) * np.dtype(stored).itemsize
    decoding_bytes = _BLOCK_COPIES * block_bytes + declared.whole_bytes + declared.lists_bytes
    source = Source(
        info=info,
        embedded=embedded,
        segment_yx=segment_yx,
        decode=decode,
        close=raster.close,
        convert=samples.convert,
        opacity=samples.opacity,
        decoder_bytes=gdal.cache_for(block_bytes) + decoding_bytes,
    )
    return source, cache_bytes


def _salvage_rows(declared: Declared) -> int:
    return _SALVAGE_ROWS if declared.present is None else 1


def _segments_of(raster: Raster, pixel: int, most_rows: int = 0) -> tuple[tuple[int, int], int]:
    """Rows and columns of the unit of decoding, a multiple of GDAL's blocks, and the bytes of them to cache.

    ``pixel``: bytes per pixel. ``most_rows``: if given, at most this many rows, or those of one block.
    """
    (height, width), (tall, wide) = raster.shape_yx, raster.ask("block_shapes")[0]
    if tall * wide * pixel > WHOLE_LIMIT_BYTES:
        raise ScanUnsupportedError(
            f"blocks of {wide} x {tall} pixels, which must be decoded at once; rewrite it in tiles"
        )
    if wide >= width:
        rows = min(height, most_rows or _BAND_BYTES // (width * pixel))
        tall = max(tall, rows // tall * tall)
        return (tall, width), CACHE_BYTES
    row_of_blocks = tall * -(-width // wide) * wide * pixel
    return (tall, wide), max(CACHE_BYTES, min(row_of_blocks + CACHE_BYTES, _ROW_OF_BLOCKS_BYTES))


def _samples_of(
    raster: Raster,
    declared: Declared,
    bands: _Bands,
    stored: str,
    stretch_of: Callable[[int, float | None], Stretch | None],
) -> Conversion:
    nodata = raster.ask("nodata")
    bits = raster.ask("tags", 1, ns="IMAGE_STRUCTURE").get("NBITS", "")
    if bits.isdecimal() and stored in ("uint8", "uint16") and 0 < int(bits) < 8 * np.dtype(stored).itemsize:
        declared.top = 2 ** int(bits) - 1
    if bands.palette:
        return _palette_samples(raster, declared, stored, nodata)
    colour = bands.colour
    stretch = stretch_of(declared.top, nodata)
    dtype = stretch.dtype if stretch else stored
    light = by_profile(declared.blocks.parts.get("icc", b""), colour, dtype)
    top = np.iinfo(dtype).max

    ycc = declared.sycc and colour == 3
    if ycc and stored not in ("uint8", "uint16"):
        raise ScanUnsupportedError(f"sYCC with samples of {stored}, which is not handled; convert it to RGB")
    made = stretched(colour, dtype, light, stretch, ycc=ycc)
    if bands.alpha:
        return replace(made, opacity=_alpha(stored, declared.top, dtype))
    if nodata is None and not (stretch and stretch.has_nan):
        return made
    as_written = int(nodata) if nodata in range(top + 1) and not stretch else 0
    return replace(made, opacity=opacity_of(nodata, dtype), nodata=as_written)


def _alpha(stored: str, declared_top: int, dtype: str) -> Callable[[NDArray], Samples]:
    top = np.iinfo(dtype).max
    full = declared_top or (np.iinfo(stored).max if stored[0] in "ui" else 1)

    def opacity(taken: NDArray) -> Samples:
        alpha = taken[:, :, -1]
        if full == top:
            return alpha
        return np.rint(np.clip(alpha.astype(np.float64) / full, 0, 1) * top).astype(dtype)

    return opacity


def _palette_samples(raster: Raster, declared: Declared, stored: str, nodata: float | None) -> Conversion:
    colours = np.zeros((np.iinfo(stored).max + 1, 4), np.uint8)
    colours[:, 3] = 255
    for index, colour in raster.ask("colormap", 1).items():
        if 0 <= index < len(colours):
            colours[index] = colour
    if nodata is not None and 0 <= nodata < len(colours):
        colours[int(nodata), 3] = 0
    light = by_profile(declared.blocks.parts.get("icc", b""), 3, "uint8")
    rgb, alpha = np.ascontiguousarray(colours[:, :3]), np.ascontiguousarray(colours[:, 3])
    # Unused entries must not make a gray palette coloured: set them to black, which is gray.
    table = light.convert(rgb[None])[0] if light.convert else palette_table(rgb)
    opacity = (lambda taken: alpha.take(taken[:, :, 0])) if alpha.min() < 255 else None
    return Conversion(
        channels=3 if table.ndim == 2 else 1,
        dtype="uint8",
        convert=lambda taken: table.take(taken[:, :, 0], axis=0),
        light=light,
        opacity=opacity,
    )


def _info_of(raster: Raster, known: _Format, declared: Declared, bands: _Bands, samples: Conversion) -> ScanInfo:
    if known.driver == "NITF" and (images := len(raster.ask("subdatasets"))) > 1:
        declared.blocks.drop("image 2" if images == 2 else f"images 2-{images}")
    if known.driver == "HFA" and (names := sorted(set(raster.ask("tags", ns=None)) - {"AREA_OR_POINT"})):
        declared.blocks.drop(f"metadata {printable(', '.join(names), 80)}")
    metadata: dict[str, Any] = {"format": known.name, "compression": _compression_of(raster, declared)}
    metadata |= declared.blocks.metadata(declared.resolution)
    return samples.info(raster.shape_yx, metadata, (*bands.dropped, *declared.blocks.dropped))


def _compression_of(raster: Raster, declared: Declared) -> str:
    # Ask GDAL only if necessary: for JPEG 2000 it walks through the whole codestream, in some files without end.
    return declared.compression or str(raster.ask("tags", ns="IMAGE_STRUCTURE").get("COMPRESSION", "none")).lower()


def _place_of(raster: Raster) -> Georeference | None:
    crs, transform, rpcs = raster.ask("crs"), raster.ask("transform"), raster.ask("rpcs")
    points, points_crs = raster.ask("gcps")
    place = Georeference(
        crs=crs.to_wkt() if crs else "",
        transform=tuple(transform)[:6] if not transform.is_identity else (),
        gcps=tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in points),
        gcps_crs=points_crs.to_wkt() if points and points_crs else "",
        rpcs={name: str(value) for name, value in rpcs.to_gdal().items()} if rpcs else {},
    )
    return None if place == Georeference() else place
