"""How light a sample is, where a colour profile, a power law or another colour space says so.

Lightness is CIE L* of the luminance that a profile gives, relative to its white (relative colorimetric intent), with
the profile's D50 brought back to D65 (Bradford). That is what samples without a profile get from sRGB's own primaries,
so that the same colours are as light in any profile.

A hard choice: what a profile has converted is kept as L* in 16 bits, not as samples of sRGB. Half a step is then
0.0008 L* anywhere, dark or light, for 8-bit scans too, whose own steps no 8-bit sRGB would meet.

References
----------
ICC.1:2022 (profile version 4.4), 6.3.3, 7.2, annex E (chromatic adaptation); CIE 15:2018, 8.2.1; PNG (W3C, third
edition), 11.3.2.2 (gAMA).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import imagecodecs
import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.colour.lab import lightness_from_samples, lightness_of_luminance, luminance_weights, sample_max
from pipeline.metadata.model import BLOCK_LIMIT_BYTES
from pipeline.support.text import reason_of

Space = Literal["gray", "rgb", "cmyk", "lab"]
ToLightness = Callable[[NDArray], NDArray[np.uint16]]

_SIGNATURES: dict[str, bytes] = {"gray": b"GRAY", "rgb": b"RGB ", "cmyk": b"CMYK", "lab": b"Lab "}
_CHANNELS: dict[str, int] = {"gray": 1, "rgb": 3, "cmyk": 4, "lab": 3}
_AS_SRGB = 0.1  # L*; the many sRGB profiles differ among each other by up to 0.06
# Bradford, D50 to D65: only the row of Y is wanted.
_Y_D65 = np.array([-0.0283248, 1.0099429, 0.0210544], np.float64)


class ProfileError(ValueError):
    """A colour profile that cannot be used; one line."""


def to_lightness(icc: bytes, space: Space, dtype: DTypeLike) -> ToLightness | None:
    """What turns samples into L*, or None where the profile says what sRGB says.

    Parameters
    ----------
    icc : the profile
    space : of the samples
    dtype : of the samples, uint8 or uint16

    Returns
    -------
    A function of (h, w) gray or (h, w, c) samples to (h, w) uint16: CIE L*, 0 to 65535 for 0 to 100. For "cmyk" a
    sample of 0 is no ink.

    Raises
    ------
    ProfileError : no profile, of another space, or one that LittleCMS refuses
    """
    _check(icc, space)
    try:
        if space == "gray":
            return _gray(icc, np.dtype(dtype))
        if space == "rgb" and _is_srgb(icc):
            return None
        transformed = _Transformed(icc, space)
        transformed(np.zeros((1, 1, _CHANNELS[space]), dtype))
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise ProfileError(f"LittleCMS refuses it: {reason_of(error)}") from error
    return transformed


def gamma_to_lightness(gamma: float, dtype: DTypeLike) -> ToLightness:
    """As :func:`to_lightness`, for gray or RGB samples (of sRGB's primaries) that are ``light ** (1 / gamma)``."""
    maximum = sample_max(np.dtype(dtype))
    linear = (np.arange(maximum + 1) / maximum) ** gamma
    gray = _codes(lightness_of_luminance(linear))

    def convert(samples: NDArray) -> NDArray[np.uint16]:
        if samples.ndim == 2:
            return gray.take(samples)
        luminance: NDArray = linear.take(samples) @ np.array(luminance_weights())
        return _codes(lightness_of_luminance(luminance))

    return convert


def lab_to_lightness(top: int) -> ToLightness:
    """As :func:`to_lightness`, for (h, w, c) samples whose first channel is L*, ``top`` for 100.

    255 of 8 bits and 65535 of CIE's and ITU's 16, 65280 of ICC's 16 (TIFF 6.0, section 23; Adobe Photoshop TIFF
    Technical Notes, "ICCLAB").
    """

    def convert(samples: NDArray) -> NDArray[np.uint16]:
        return _codes(samples[..., 0].astype(np.float64) * (100 / top))

    return convert


def description(icc: bytes) -> str:
    """The profile's name for people; empty where it has none. Never raises."""
    count = int.from_bytes(icc[128:132], "big") if len(icc) >= 132 else 0
    for at in range(132, min(132 + 12 * count, len(icc) - 11, 132 + 12 * 100), 12):
        if icc[at : at + 4] == b"desc":
            start, size = int.from_bytes(icc[at + 4 : at + 8], "big"), int.from_bytes(icc[at + 8 : at + 12], "big")
            return _text(icc[start : start + min(size, 4096)])
    return ""


def _text(tag: bytes) -> str:
    """The first text of a ``desc`` (version 2) or ``mluc`` (version 4) element."""
    if tag[:4] == b"desc":
        count = int.from_bytes(tag[8:12], "big")
        text = tag[12 : 12 + count].decode("latin-1")
    elif tag[:4] == b"mluc" and len(tag) >= 28:
        length, start = int.from_bytes(tag[20:24], "big"), int.from_bytes(tag[24:28], "big")
        text = tag[start : start + length].decode("utf-16-be", "replace")
    else:
        return ""
    return re.sub(r"[^\x20-\x7e\xa0-\uffff]", "", text.split("\0")[0])[:80]


def _check(icc: bytes, space: Space) -> None:
    if len(icc) < 132 or icc[36:40] != b"acsp":
        raise ProfileError("not an ICC profile")
    if len(icc) > BLOCK_LIMIT_BYTES:
        raise ProfileError(f"{len(icc)} bytes, above the limit of {BLOCK_LIMIT_BYTES}")
    if icc[16:20] != _SIGNATURES[space]:
        raise ProfileError(f"it is for {icc[16:20].decode('latin-1').strip()!r}, not for {space}")


def _gray(icc: bytes, dtype: np.dtype) -> ToLightness | None:
    codes = np.arange(sample_max(dtype) + 1, dtype=dtype)
    lightness = _lightness_by_profile(icc, "gray", codes[None, :])[0]
    if np.abs(lightness - lightness_from_samples(codes[None, :])[0]).max() <= _AS_SRGB:
        return None
    table = _codes(lightness)
    return lambda samples: table.take(samples)


def _is_srgb(icc: bytes) -> bool:
    """Whether grays, pure colours and a few thousand others are as light as in sRGB."""
    levels = np.linspace(0, 65535, 17).astype(np.uint16)
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(1, -1, 3)
    difference = _lightness_by_profile(icc, "rgb", cube) - lightness_from_samples(cube)
    return bool(np.abs(difference).max() <= _AS_SRGB)


class _Transformed:
    """Samples to L* through LittleCMS; safe to use from several threads."""

    def __init__(self, icc: bytes, space: Space) -> None:
        self._icc = icc
        self._space = space

    def __call__(self, samples: NDArray) -> NDArray[np.uint16]:
        return _codes(_lightness_by_profile(self._icc, self._space, samples))


def _lightness_by_profile(icc: bytes, space: Space, samples: NDArray) -> NDArray:
    """(h, w) L* of (h, w[, c]) samples. In floating point: LittleCMS rounds 16 bits of dark light to 0.03 L*."""
    xyz = imagecodecs.cms_transform(
        np.ascontiguousarray(samples),
        icc,
        imagecodecs.cms_profile("xyz"),
        colorspace=space,
        outcolorspace="xyz",
        outdtype="float32",
        intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
    )
    return lightness_of_luminance(np.asarray(xyz).reshape(*samples.shape[:2], 3) @ _Y_D65)


def _codes(lightness: NDArray) -> NDArray[np.uint16]:
    codes: NDArray[np.uint16] = np.rint(np.clip(lightness, 0, 100) * 655.35).astype(np.uint16)
    return codes
