"""Conversion of stored samples: kept as they are, or turned into lightness by a profile or a power law."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.colour import icc as profiles
from pipeline.colour.icc import ProfileError
from pipeline.colour.lab import lightness_of_luminance
from pipeline.readers._base import Samples
from pipeline.types import Tone

Convert = Callable[[NDArray], Samples]
Primaries = tuple[float, ...]
"""x and y of white, red, green and blue (CIE 1931), or nothing for sRGB's."""
SRGB: Primaries = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
ADOBE_RGB: Primaries = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ADOBE_GAMMA = 563 / 256
"""Adobe RGB (1998) Color Image Encoding, version 2005-05, 4.3.1.2 and 4.3.4.2."""
# Said by the caller of open_scan and asked in every reader's own file.
_keeps_colours: ContextVar[bool] = ContextVar("keeps_colours", default=False)
_LEAST_VOLUME = 1e-6  # three primaries on one line span none


@dataclass(frozen=True)
class Light:
    """How to convert samples.

    Attributes
    ----------
    convert : (h, w) gray, (h, w, 3) RGB or (h, w, 4) ink -> L* as uint16, or RGB if ``tone`` is "srgb"; None to keep
        the samples
    note : one line on the conversion, for ``ScanInfo.metadata["lightness"]``; empty if there is nothing to say
    dropped : one line on a profile that could not be used
    is_coloured : ``convert`` gives sRGB
    """

    convert: Convert | None = None
    note: str = ""
    dropped: str = ""
    is_coloured: bool = False

    @property
    def tone(self) -> Tone:
        plain = self.convert is None or self.convert is ink_as_rgb
        return "srgb" if plain or self.is_coloured else "lightness"


@contextlib.contextmanager
def keeping_colours() -> Iterator[None]:
    """Scans that are opened in the body give their colours as sRGB, where else they give lightness through a profile.

    For coloured copies, whose lightness nobody needs.
    """
    token = _keeps_colours.set(True)
    try:
        yield
    finally:
        _keeps_colours.reset(token)


def by_profile(icc: bytes, channels: int, dtype: str) -> Light:
    """Convert gray (1), RGB (3) or ink (4 channels, 0 for none); without a profile they are sRGB, or plain ink."""
    plain = (
        Light(ink_as_rgb, "CMYK without a profile, by the plain formula (1 - C)(1 - K)") if channels == 4 else Light()
    )
    if not icc:
        return plain
    try:
        if _keeps_colours.get() and channels in (3, 4):
            to_srgb = profiles.to_srgb(icc, "rgb" if channels == 3 else "cmyk", dtype)
            return Light(to_srgb, "through its ICC profile, as sRGB", is_coloured=True)
        convert = _by_profile(icc, channels, dtype)
    except ProfileError as error:
        taken = "taken by (1 - C)(1 - K)" if channels == 4 else "taken as sRGB"
        return Light(plain.convert, plain.note, f"ICC profile ({error}; the samples are {taken})")
    name = profiles.description(icc)
    return (
        Light(convert, f"through its ICC profile {name!r}" if name else "through its ICC profile") if convert else plain
    )


def _by_profile(icc: bytes, channels: int, dtype: str) -> Convert | None:
    if channels == 1 and icc[16:20] == b"RGB ":  # common in scanners' gray: the sample stands for R, G and B
        convert = profiles.to_lightness(icc, "rgb", dtype)
        if convert is None:
            return None
        codes = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
        table = convert(np.repeat(codes[None, :, None], 3, axis=2))[0]
        return lambda samples: table.take(samples)
    space: profiles.Space = {1: "gray", 3: "rgb", 4: "cmyk"}[channels]  # type: ignore[assignment]
    return profiles.to_lightness(icc, space, dtype)


def by_gamma(gamma: float, dtype: str, primaries: Primaries = (), named: str = "") -> Light:
    """Convert gray or RGB samples that are ``light ** (1 / gamma)``; ``primaries`` if those of RGB are not sRGB's.

    ``named``: the source of these facts, for the note.
    """
    weights = luminance_of(primaries) if primaries else None
    note = f"{named + ': ' if named else ''}by a power law, light = sample ** {gamma:.5g}"
    if weights is not None:
        return Light(_by_weights(gamma, dtype, weights), f"{note}, and the colours of its primaries")
    return Light(profiles.gamma_to_lightness(gamma, dtype), note)


def luminance_of(primaries: Primaries) -> tuple[float, float, float] | None:
    """The shares of full red, green and blue in white's luminance; None if ``primaries`` are impossible.

    Chromaticities give X, Y, Z of the primaries and of white; white is the sum of the three (SMPTE RP 177).

    >>> [round(weight, 4) for weight in luminance_of(ADOBE_RGB)]
    [0.2973, 0.6274, 0.0753]
    """
    if len(primaries) != 8 or not all(np.isfinite(primaries)) or min(primaries[1::2]) <= 0:
        return None
    columns = [(x / y, 1.0, (1 - x - y) / y) for x, y in zip(primaries[::2], primaries[1::2], strict=True)]
    white, *lights = (np.array(column) for column in columns)
    matrix = np.stack(lights, axis=1)
    if abs(np.linalg.det(matrix)) < _LEAST_VOLUME:
        return None
    red, green, blue = (float(weight) for weight in np.linalg.solve(matrix, white))
    return (red, green, blue) if min(red, green, blue) >= 0 else None


def _by_weights(gamma: float, dtype: str, weights: tuple[float, float, float]) -> Convert:
    top = int(np.iinfo(dtype).max)
    linear = (np.arange(top + 1) / top) ** gamma

    def convert(samples: NDArray) -> Samples:
        luminance: NDArray = linear.take(samples) @ np.array(weights)
        codes: Samples = np.rint(np.clip(lightness_of_luminance(luminance), 0, 100) * 655.35).astype(np.uint16)
        return codes

    return convert


def ink_as_rgb(ink: NDArray) -> Samples:
    """(h, w, 4) cyan, magenta, yellow, black (0 for none) -> (h, w, 3) RGB of the same type, (1 - C)(1 - K) etc."""
    top = int(np.iinfo(ink.dtype).max)
    paper = top - ink.astype(np.uint32)  # products stay below 2 ** 32
    rgb: Samples = ((paper[:, :, :3] * paper[:, :, 3:] + np.uint32(top // 2)) // np.uint32(top)).astype(ink.dtype)
    return rgb


@dataclass(frozen=True)
class Stretch:
    """Linear scaling of samples that are neither 8 nor 16 bits to the full range of ``dtype``.

    ``low`` and ``high`` become 0 and full scale; values outside are clipped. If some pixels may be empty (all channels
    ``nodata``, or NaN), these become 0 and ``low`` becomes 1; if only one channel of a pixel is empty, it is clipped.
    """

    low: float
    high: float
    dtype: str
    note: str = ""
    nodata: float | None = None
    has_nan: bool = False

    @classmethod
    def of(
        cls, stored: str, top: int, every: Callable[[], Iterable[NDArray]], nodata: float | None = None
    ) -> Stretch | None:
        """The scaling for samples of type ``stored``; None if they are kept as they are.

        Parameters
        ----------
        stored : data type
        top : the largest sample if the file states it, else 0
        every : yields all samples, part by part
        nodata : a value that marks an empty pixel
        """
        if stored in ("uint8", "uint16"):
            return cls(0, top, stored, nodata=nodata) if top else None
        low, high, has_nan = np.inf, -np.inf, False
        for part in every():
            values = part[np.isfinite(part)] if part.dtype.kind == "f" else part.reshape(-1)
            has_nan |= values.size < part.size
            if nodata is not None:
                values = values[values != nodata]
            if values.size:
                low, high = min(low, float(values.min())), max(high, float(values.max()))
        if stored.startswith("float") and low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        if not low < high:  # one value, or none
            high = low + 1 if np.isfinite(low) else 1.0
            low = low if np.isfinite(low) else 0.0
        note = f"{stored} samples, {low:g} to {high:g} stretched linearly"
        return cls(low, high, "uint16", note, nodata, has_nan)

    def convert(self, samples: NDArray) -> Samples:
        full, first = np.iinfo(self.dtype).max, 0 if self.nodata is None and not self.has_nan else 1
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = (samples.astype(np.float64) - self.low) * ((full - first) / (self.high - self.low)) + first
        no_number = np.asarray(np.isnan(scaled))
        nothing: NDArray = no_number
        if self.nodata is not None:
            nothing = np.logical_or(nothing, samples == self.nodata)
        if samples.ndim == 3:
            nothing = np.asarray(nothing.all(axis=2, keepdims=True))
        clipped = np.rint(np.clip(np.where(no_number, first, scaled), first, full))
        converted: Samples = np.where(nothing, 0, clipped).astype(self.dtype)
        return converted


def opacity_of(nodata: float | None, dtype: str) -> Callable[[NDArray], Samples]:
    """A function (h, w, bands) -> (h, w) of ``dtype``: 0 if all bands are ``nodata`` or NaN, else full scale."""
    full = np.iinfo(dtype).max

    def opacity(samples: NDArray) -> Samples:
        nothing = np.isnan(samples) if samples.dtype.kind == "f" else np.zeros(samples.shape, bool)
        if nodata is not None:
            nothing |= samples == nodata
        return np.where(nothing.all(axis=2), 0, full).astype(dtype)

    return opacity
