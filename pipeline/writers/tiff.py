"""Tiled, compressed, pyramidal TIFF, written top to bottom in one pass with flat memory.

Level 0 is the main image; each further level is half the one above and hangs from it as a SubIFD (Adobe Photoshop TIFF
Technical Notes, 2002: where Bio-Formats, QuPath, libvips and GDAL look for it).

While a level is streamed out, its halved rows go to an unnamed temporary file beside the result, from which the
next level is then streamed: one band in the encoder and one being composed is all that memory ever holds. Plain files
and not ``np.memmap``: a full disk is then an error that can be reported (a mapped page that finds no space kills the
process with SIGBUS), and a file without a name cannot be left behind, not even by a kill.

Compression is libdeflate's fastest level. On a toned 8-bit photograph with 2 gray levels of noise it left 0.49 of the
bytes at 218 MB/s, level 6 left 0.46 at 69 MB/s, zlib's level 6 left 0.47 at 18 MB/s; a noisy 16-bit one gained nothing
above level 1.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.files import writing

ReadBand = Callable[[slice], NDArray]

_BAND_PX = 6_000_000
_BAND_MAX_ROWS = 512  # more bands than this makes: composing and encoding overlap well only if there are several
_CLASSIC_MAX_BYTES = 3_900_000_000  # of 2**32; the rest is for tags and for tiles that compression makes larger
_COMPRESSION: dict[str, dict[str, Any]] = {
    "deflate": {"compression": "adobe_deflate", "compressionargs": {"level": 1}, "predictor": True},
    "none": {},
}
_RESOLUTION_UNITS = {"none": 1, "inch": 2, "in": 2, "centimeter": 3, "cm": 3, 1: 1, 2: 2, 3: 3}


@dataclass(frozen=True)
class TiffMetadata:
    """What is written beside the pixels. No time stamp: the same scan gives the same bytes.

    Attributes
    ----------
    software, description : any text, stored as UTF-8; left out where empty
    resolution : x, y in pixels per unit, and the unit: "none", "inch" or "centimeter", or TIFF's number for it (1-3)
    orientation : TIFF tag 274, 1-8
    """

    software: str = ""
    description: str = ""
    resolution: tuple[float, float, str | int] | None = None
    orientation: int | None = None

    def __post_init__(self) -> None:
        if self.resolution is not None and _unit_key(self.resolution[2]) not in _RESOLUTION_UNITS:
            raise UsageError(f"resolution unit {self.resolution[2]!r}: TIFF has none, inch and centimeter; convert it")
        if self.orientation is not None and not 1 <= self.orientation <= 8:
            raise UsageError(f"orientation {self.orientation}: TIFF has 1 to 8; leave it out if it is not known")


@dataclass(frozen=True)
class PyramidSummary:
    """What was written: rows and columns of each level, largest first; the file's size; whether it is a BigTIFF."""

    levels_yx: tuple[tuple[int, int], ...]
    size_bytes: int
    bigtiff: bool


def pyramid_levels(shape_yx: tuple[int, int], tile_px: int) -> tuple[tuple[int, int], ...]:
    """Shapes from ``shape_yx`` down, each half the last (rounded up), to the first that fits one tile.

    >>> pyramid_levels((700, 3), 256)
    ((700, 3), (350, 2), (175, 1))
    """
    levels = [shape_yx]
    while max(levels[-1]) > tile_px:
        height, width = levels[-1]
        levels.append(((height + 1) // 2, (width + 1) // 2))
    return tuple(levels)


def band_rows(width: int, tile_px: int) -> int:
    """Rows of the bands that :func:`write_pyramid` asks for: a multiple of ``tile_px``, about 6 megapixels at most."""
    rows = min(_BAND_PX // width, _BAND_MAX_ROWS)
    return max(rows // tile_px, 1) * tile_px


def is_bigtiff_needed(shape_yx: tuple[int, int], dtype: np.dtype, tile_px: int) -> bool:
    """Whether the uncompressed tiles of all levels come near the 4 GiB that a classic TIFF can address."""
    tiles = sum(-(-height // tile_px) * -(-width // tile_px) for height, width in pyramid_levels(shape_yx, tile_px))
    return tiles * tile_px**2 * 3 * np.dtype(dtype).itemsize > _CLASSIC_MAX_BYTES


def halve(samples: NDArray) -> NDArray:
    """Mean of each 2 x 2 of (h, w, 3) samples, rounded; at an odd edge, of the pixels that are there."""
    height, width = samples.shape[:2]
    if height % 2 or width % 2:
        # An edge pixel met twice leaves the mean of its pair (or itself) unchanged.
        samples = cv2.copyMakeBorder(samples, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    half: NDArray = cv2.resize(samples, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
    return half


def write_pyramid(
    path: Path,
    shape_yx: tuple[int, int],
    dtype: np.dtype,
    read_band: ReadBand,
    *,
    tile_px: int = 256,
    compression: str = "deflate",
    metadata: TiffMetadata | None = None,
    threads: int = 2,
) -> PyramidSummary:
    """Write ``path``, which appears only when it is complete; whatever goes wrong, an older file stays as it was.

    Parameters
    ----------
    shape_yx : rows, columns of the image
    dtype : uint8 or uint16
    read_band : called once for each band, top to bottom, with a slice of rows that starts at a multiple of ``tile_px``;
        returns (h, W, 3) RGB samples of ``dtype``. With ``threads`` above 1 it runs in a thread of its own, one band
        ahead of the encoder, never twice at once. What it raises is passed on unchanged.
    tile_px : side of a tile, a multiple of 16
    compression : "deflate" (with horizontal predictor) or "none"
    threads : that encode tiles; the bytes written do not depend on it

    Raises
    ------
    OutputError : the file cannot be written: disk full, permissions
    UsageError : an argument makes no sense, or a band has another shape or type than announced
    """
    if min(shape_yx) < 1 or compression not in _COMPRESSION or tile_px < 16 or tile_px % 16:
        raise UsageError(
            f"image of {shape_yx} pixels, tile {tile_px}, compression {compression!r}: cannot be a TIFF; "
            f"take at least one pixel, a multiple of 16 and one of {', '.join(_COMPRESSION)}"
        )
    pyramid = _Pyramid(shape_yx, np.dtype(dtype), tile_px, compression, threads)
    part = path.with_name(f"{path.name}.part")
    with writing(path):
        try:
            with part.open("w+b") as stream:
                pyramid.write(stream, path.parent, read_band, metadata or TiffMetadata())
                stream.flush()
                os.fsync(stream.fileno())
            size_bytes = part.stat().st_size
            os.replace(part, path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            if not isinstance(error, _BandError):
                raise
            band_error = error
        else:
            return PyramidSummary(pyramid.levels, size_bytes, pyramid.bigtiff)
    # Outside of "writing", so that an OSError met while reading is not taken for one met while writing.
    raise band_error.reason


class _BandError(Exception):
    """Carries what ``read_band`` raised past the handlers of what writing raises."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class _Pyramid:
    shape_yx: tuple[int, int]
    dtype: np.dtype
    tile_px: int
    compression: str
    threads: int

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        return pyramid_levels(self.shape_yx, self.tile_px)

    @property
    def bigtiff(self) -> bool:
        return is_bigtiff_needed(self.shape_yx, self.dtype, self.tile_px)

    def write(self, stream: Any, folder: Path, read_band: ReadBand, metadata: TiffMetadata) -> None:
        """Write the whole file into ``stream``; temporary files go to ``folder``."""
        with contextlib.ExitStack() as stack:
            tiff = stack.enter_context(tifffile.TiffWriter(stream, bigtiff=self.bigtiff))
            spills = [stack.enter_context(_Spill(folder, width, self.dtype)) for _, width in self.levels[1:]]
            # Entered last, left first: no band is still being read or halved when the files are closed.
            ahead = stack.enter_context(ThreadPoolExecutor(1)) if self.threads > 1 else None
            read = self._checked(read_band)
            for index, level_yx in enumerate(self.levels):
                spill = spills[index] if index < len(spills) else None
                tags = {"subfiletype": 1, "software": False} if index else self._main_tags(metadata)
                bands = _bands(read, self._slices(level_yx), spill, ahead)
                self._write_level(tiff, level_yx, bands, tags)
                if spill is not None:
                    read = spill.read

    def _checked(self, read_band: ReadBand) -> ReadBand:
        def read(rows: slice) -> NDArray:
            try:
                band = read_band(rows)
            except Exception as error:
                raise _BandError(error) from error
            expected = (rows.stop - rows.start, self.shape_yx[1], 3)
            if band.shape != expected or band.dtype != self.dtype:
                raise UsageError(
                    f"rows {rows.start}-{rows.stop}: {band.dtype} {band.shape} where {self.dtype} {expected} was "
                    "announced, the picture would be sheared; return one band as asked"
                )
            return np.ascontiguousarray(band)

        return read

    def _slices(self, level_yx: tuple[int, int]) -> list[slice]:
        step = band_rows(level_yx[1], self.tile_px)
        return [slice(start, min(start + step, level_yx[0])) for start in range(0, level_yx[0], step)]

    def _main_tags(self, metadata: TiffMetadata) -> dict[str, Any]:
        tags: dict[str, Any] = {"subifds": len(self.levels) - 1, "software": _text(metadata.software) or False}
        if metadata.description:
            tags["description"] = _text(metadata.description)
        if metadata.resolution is not None:
            tags["resolution"] = metadata.resolution[:2]
            tags["resolutionunit"] = _RESOLUTION_UNITS[_unit_key(metadata.resolution[2])]
        if metadata.orientation is not None:
            tags["extratags"] = [(274, "H", 1, metadata.orientation, True)]
        return tags

    def _write_level(
        self, tiff: tifffile.TiffWriter, level_yx: tuple[int, int], bands: Iterator[NDArray], tags: dict[str, Any]
    ) -> None:
        across = -(-level_yx[1] // self.tile_px)
        down = band_rows(level_yx[1], self.tile_px) // self.tile_px
        tiff.write(
            _tiles(bands, self.tile_px),
            shape=(*level_yx, 3),
            dtype=self.dtype,
            photometric="rgb",
            tile=(self.tile_px, self.tile_px),
            metadata=None,
            maxworkers=max(1, self.threads),
            # Tiles handed to the encoder at once: one band's, so that it never holds on to more.
            buffersize=across * down * self.tile_px**2 * 3 * self.dtype.itemsize,
            **_COMPRESSION[self.compression],
            **tags,
        )


class _Spill:
    """Rows of one reduced level, appended once and then read once, in a nameless file."""

    def __init__(self, folder: Path, width: int, dtype: np.dtype) -> None:
        self._width = width
        self._dtype = dtype
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> _Spill:
        return self

    def __exit__(self, *_: object) -> None:
        # What is still buffered may not fit on a full disk; nobody needs it any more.
        with contextlib.suppress(OSError):
            self._file.close()

    def append(self, rows: NDArray) -> None:
        self._file.write(np.ascontiguousarray(rows).data)

    def read(self, rows: slice) -> NDArray:
        band = np.empty((rows.stop - rows.start, self._width, 3), self._dtype)
        self._file.seek(rows.start * self._width * 3 * self._dtype.itemsize)
        if self._file.readinto(band.data.cast("B")) != band.nbytes:  # type: ignore[attr-defined]
            raise OSError("a temporary file was cut short")
        return band


def _bands(
    read: ReadBand, slices: list[slice], spill: _Spill | None, ahead: ThreadPoolExecutor | None
) -> Iterator[NDArray]:
    """Read each band, append its half to ``spill``, hand it on; the next one meanwhile, where there is a thread."""

    def fetch(rows: slice) -> NDArray:
        band = read(rows)
        if spill is not None:
            spill.append(halve(band))
        return band

    if ahead is None:
        yield from map(fetch, slices)
        return
    pending = ahead.submit(fetch, slices[0])
    for following in slices[1:]:
        band = pending.result()
        pending = ahead.submit(fetch, following)
        yield band
    yield pending.result()


def _tiles(bands: Iterator[NDArray], tile_px: int) -> Iterator[NDArray]:
    for band in bands:
        for y in range(0, band.shape[0], tile_px):
            for x in range(0, band.shape[1], tile_px):
                yield band[y : y + tile_px, x : x + tile_px]


def _text(text: str) -> bytes:
    # A TIFF string ends at its first NUL; unpaired surrogates come from file names that are not UTF-8.
    return text.replace("\0", " ").encode("utf-8", "backslashreplace")


def _unit_key(unit: str | int) -> str | int:
    return unit.lower() if isinstance(unit, str) else int(unit)
