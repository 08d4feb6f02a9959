"""Samples of any type and depth as uint8 or uint16.

Unsigned integers of up to 16 bits keep their value, or are stretched to the full range. Everything else is mapped
linearly from black to white: from SMinSampleValue to SMaxSampleValue if the file has them; else from 0 to 1 if all
samples are floating-point numbers in that range; from the smallest to the largest possible value for unsigned integers
of 17 to 31 bits; and from the smallest to the largest sample otherwise. The last case includes signed integers of any
depth, because heights and counts seldom fill it. It takes one pass through the picture, cached for later openings.

References
----------
TIFF 6.0 specification (Aldus, 1992), section 19 (data sample format).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.errors import ScanDamagedError, ScanUnreachableError, ScanUnreadableError
from pipeline.readers._base import Samples, reason, refuse_drive_errors, scaling_table
from pipeline.readers._fingerprint_cache import FingerprintCache
from pipeline.readers._tiff.segments import Segments

_FULL_RANGE_BITS = range(17, 32)


@dataclass(frozen=True)
class Range:
    """The values that become black and white; ``gaps`` if some samples are NaN or infinite."""

    low: float
    high: float
    gaps: bool = False


_RANGES: FingerprintCache[Range] = FingerprintCache(256)


@dataclass(frozen=True)
class Scale:
    """Conversion of stored samples to ``dtype``: by a table, linearly over a range, or unchanged."""

    dtype: np.dtype
    table: Samples | None = None
    range: Range | None = None
    inverted: bool = False

    def __call__(self, stored: NDArray) -> Samples:
        if self.table is not None:
            samples: Samples = self.table.take(stored, axis=0, mode="clip")
        elif self.range is not None:
            samples = _linear(stored, self.range, self.dtype)
        else:
            samples = stored
        return ~samples if self.inverted else samples


@dataclass(frozen=True)
class NoData:
    """The stored value that marks pixels without a picture."""

    value: float

    def where(self, stored: NDArray) -> NDArray[np.bool_]:
        """True for samples that have the value."""
        return np.asarray(np.isnan(stored) if math.isnan(self.value) else stored == stored.dtype.type(self.value))

    def written(self, dtype: np.dtype) -> int:
        """The value in the coloured picture: the same if possible, else 0."""
        whole = math.isfinite(self.value) and float(self.value).is_integer()
        return int(self.value) if whole and 0 <= self.value <= np.iinfo(dtype).max else 0


def nodata_of(page: tifffile.TiffPage, dtype: np.dtype) -> NoData | None:
    """The value of GDAL_NODATA; None if there is none, or no sample can have it."""
    text = page.tags.valueof(42113)
    try:
        number = float(str(text).strip().strip("\0").replace(",", ".")) if text is not None else None
        exact = int(str(text)) if number is not None and dtype.kind in "ui" and number.is_integer() else number
        if exact is None:
            return None
    except ValueError:
        exact = number  # an integer written as 255.0
    if exact is None or (dtype.kind in "ui" and not _fits(exact, dtype)):
        return None
    return NoData(exact)


def _fits(number: float, dtype: np.dtype) -> bool:
    limits = np.iinfo(dtype)
    return math.isfinite(number) and limits.min <= number <= limits.max and float(number).is_integer()


def needs_range(page: tifffile.TiffPage, dtype: np.dtype) -> bool:
    return dtype.kind != "u" or page.bitspersample > 16


def plain_scale(page: tifffile.TiffPage, dtype: np.dtype, *, inverted: bool = False) -> Scale:
    """The scale of unsigned integers of up to 16 bits."""
    bits = 8 * dtype.itemsize if page.bitspersample > 16 else page.bitspersample
    table = None if bits in (8, 16) else scaling_table(bits)
    return Scale(dtype if table is None else table.dtype, table, inverted=inverted)


def linear_scale(dtype: np.dtype, over: Range, *, inverted: bool = False) -> Scale:
    return Scale(np.dtype(np.uint8 if dtype == np.int8 else np.uint16), range=over, inverted=inverted)


def opacity_range(page: tifffile.TiffPage, dtype: np.dtype) -> Range:
    if dtype.kind == "f":
        return Range(0.0, 1.0)
    return Range(0, 2**page.bitspersample - 1 if dtype.kind == "u" else np.iinfo(dtype).max)


def mask_scale(page: tifffile.TiffPage) -> Scale:
    """The scale from a mask's samples to opacity; 0 is transparent, whatever its photometric interpretation says."""
    return plain_scale(page, np.dtype(np.uint8))


def to_depth(samples: Samples, dtype: np.dtype) -> Samples:
    """Convert between uint8 and uint16, full scale to full scale."""
    if samples.dtype == dtype:
        return samples
    if dtype == np.uint16:
        return samples.astype(np.uint16) * np.uint16(257)
    return np.asarray((samples.astype(np.uint32) + 128) // 257, np.uint8)


def range_note(page: tifffile.TiffPage, dtype: np.dtype, over: Range, *, inverted: bool) -> str:
    """One line for people on how a range of samples was mapped."""
    signed = "signed " * (dtype.kind == "i")
    kind = "floating-point" if dtype.kind == "f" else f"{signed}{page.bitspersample}-bit integer"
    if not over.low < over.high:
        return f"{kind} samples that are all {over.low:.6g} became mid gray"
    ends = "white and black" if inverted else "black and white"
    return f"{kind} samples from {over.low:.6g} to {over.high:.6g} were mapped linearly to {ends}"


def range_of(
    page: tifffile.TiffPage,
    segments: Segments,
    channels: tuple[int, ...],
    nodata: NoData | None,
    *,
    salvage: bool = False,
) -> Range:
    """The range of the picture's colours. If only the samples can tell, decodes all of it, a segment at a time."""
    declared = _declared(page, channels)
    if declared is not None:
        return declared
    dtype, bits = segments.dtype, page.bitspersample
    if dtype.kind == "u" and bits in _FULL_RANGE_BITS:
        return Range(0, 2**bits - 1)
    status = os.fstat(page.parent.filehandle.fileno())
    what = page.offset, salvage
    found = _RANGES.get(status, what, lambda: _met(segments, channels, nodata, salvage=salvage))
    if dtype.kind == "f" and found.low >= 0 and found.high <= 1:
        return Range(0.0, 1.0, found.gaps)
    return found


def _declared(page: tifffile.TiffPage, channels: tuple[int, ...]) -> Range | None:
    ends = []
    for code, choose in ((340, min), (341, max)):
        values = page.tags.valueof(code)
        listed = values if isinstance(values, tuple) else (values,)
        numbers = [n for n in listed[: len(channels)] if isinstance(n, int | float) and math.isfinite(n)]
        if not numbers:
            return None
        ends.append(choose(numbers))
    return Range(ends[0], ends[1]) if ends[0] < ends[1] else None


def _met(segments: Segments, channels: tuple[int, ...], nodata: NoData | None, *, salvage: bool) -> Range:
    segments.check_unplanned()
    ends: list[float] = []
    gaps = False
    for row, column in segments.there():
        try:
            found, has_gaps = _ends(segments.pieces(row, column, channels), nodata)
        except Exception as error:
            refuse_drive_errors(error)
            if isinstance(error, ScanUnreachableError):
                raise
            if salvage:
                continue
            if isinstance(error, ScanUnreadableError):
                raise
            raise ScanDamagedError(f"damaged ({reason(error)}); restore it from its source") from error
        ends += found
        ends = [min(ends), max(ends)] if ends else []
        gaps |= has_gaps
    return Range(ends[0], ends[1], gaps) if ends else Range(0, 1, gaps)


def _ends(pieces: Iterable[NDArray], nodata: NoData | None) -> tuple[list[float], bool]:
    """The smallest and the largest sample, empty if there are none; and whether some are NaN or infinite.

    Nodata is checked per channel: a nodata value in one channel alone must not stretch the range of all.
    """
    ends: list[float] = []
    gaps = False
    for samples in pieces:
        met = samples if nodata is None else samples[~nodata.where(samples)]
        if met.dtype.kind == "f":
            finite = np.isfinite(met)
            if not finite.all():
                met, gaps = met[finite], True
        if met.size:
            ends += [met.min().item(), met.max().item()]
            ends = [min(ends), max(ends)]
    return ends, gaps


def _linear(stored: NDArray, over: Range, dtype: np.dtype) -> Samples:
    """Map ``over`` to the range of ``dtype``. Integers are subtracted as such: 64 bits exceed a float's precision."""
    top = np.iinfo(dtype).max
    if not over.low < over.high:
        return np.full(stored.shape, top // 2, dtype)
    if stored.dtype.kind == "f":
        finite = np.nan_to_num(stored.astype(np.float64), nan=over.low)
        share = (np.clip(finite, over.low, over.high) - over.low) / (over.high - over.low)
    else:
        limits = np.iinfo(stored.dtype)
        low, high = max(math.ceil(over.low), limits.min), min(math.floor(over.high), limits.max)
        unsigned = np.dtype(f"u{stored.dtype.itemsize}")
        clipped = np.clip(stored, low, high)
        above = clipped.view(unsigned) - np.asarray(low, stored.dtype).view(unsigned)
        share = (above + np.float64(low - over.low)) / (over.high - over.low)
    return np.asarray(np.rint(share * top), dtype)
