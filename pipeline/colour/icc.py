"""Lightness of samples by a colour profile, a power law or another colour space.

Lightness is CIE L* of the luminance by the profile, relative to its white (relative colorimetric intent), with the
profile's D50 adapted back to D65 (Bradford). Samples without a profile get the same from sRGB's own primaries, so equal
colours have equal lightness in any profile.

Samples converted by a profile are kept as L* in 16 bits, not as sRGB samples. Half a step is then 0.0008 L* everywhere,
dark or light. It also holds for 8-bit scans, whose own steps 8-bit sRGB could not represent.

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
_AS_SRGB = 0.1  # L*; the many sRGB profiles differ from each other by up to 0.06
# Bradford, D50 to D65: only the row of Y is needed.
_Y_D65 = np.array([-0.0283248, 1.0099429, 0.0210544], np.float64)


class ProfileError(ValueError):
    """A colour profile that cannot be used; one line."""


def to_lightness(icc: bytes, space: Space, dtype: DTypeLike) -> ToLightness | None:
    """A function from samples to L*, or None if the profile is equivalent to sRGB.

    Parameters
    ----------
    icc : the profile
    space : colour space of the samples
    dtype : type of the samples, uint8 or uint16

    Returns
    -------
    A function of (h, w) gray or (h, w, c) samples to (h, w) uint16: CIE L*, 0 to 65535 for 0 to 100. For "cmyk" a
    sample of 0 is no ink.

    Raises
    ------
    ProfileError : not a profile, of another space, or refused by LittleCMS
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


def to_srgb(icc: bytes, space: Space, dtype: DTypeLike) -> Callable[[NDArray], NDArray]:
    """A function from (h, w, c) "rgb" or "cmyk" samples to (h, w, 3) sRGB samples of the same type.

    Relative colorimetric: colours that sRGB does not have become the nearest ones by LittleCMS. Raises ProfileError as
    :func:`to_lightness`.
    """
    _check(icc, space)

    def convert(samples: NDArray) -> NDArray:
        made = imagecodecs.cms_transform(
            np.ascontiguousarray(samples),
            icc,
            imagecodecs.cms_profile("srgb"),
            colorspace=space,
            outcolorspace="rgb",
            outdtype=np.dtype(dtype).name,
            intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
        )
        return np.asarray(made).reshape(*samples.shape[:2], 3)

    try:
        convert(np.zeros((1, 1, _CHANNELS[space]), dtype))
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise ProfileError(f"LittleCMS refuses it: {reason_of(error)}") from error
    return convert


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
    """As :func:`to_lightness`, for (h, w, c) samples whose first channel is L*, where ``top`` stands for 100.

    ``top`` is 255 for 8 bits, 65535 for CIE's and ITU's 16 bits, 65280 for ICC's 16 bits (TIFF 6.0, section 23; Adobe
    Photoshop TIFF Technical Notes, "ICCLAB").
    """

    def convert(samples: NDArray) -> NDArray[np.uint16]:
        return _codes(samples[..., 0].astype(np.float64) * (100 / top))

    return convert


def description(icc: bytes) -> str:
    """The profile's name for people; empty if it has none. Never raises."""
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
    """True if grays, pure colours and a few thousand others have the same lightness as in sRGB."""
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
    """(h, w) L* of (h, w[, c]) samples. In floating point, because LittleCMS rounds dark 16-bit light to 0.03 L*."""
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
