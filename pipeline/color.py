"""Gray, RGB and CIE L*a*b*: every conversion between scan samples and what a generator sees.

The white is D65 taken as the row sums of the sRGB matrix, so that a neutral sample has a* = b* = 0 to the last
bit that float32 allows. Lightness always comes from the scan; only chroma is ever predicted. Where L*, a*, b* leave the
sRGB gamut the chroma is scaled down at constant lightness and hue angle until the colour fits.

References
----------
IEC 61966-2-1 (sRGB transfer curve and primaries); CIE 15:2018, 8.2.1 (CIE 1976 L*a*b*).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

_RGB_TO_XYZ = np.array(
    [[0.4123908, 0.3575843, 0.1804808], [0.2126390, 0.7151687, 0.0721923], [0.0193308, 0.1191948, 0.9505322]],
    dtype=np.float64,
)
_WHITE_XYZ = _RGB_TO_XYZ.sum(axis=1)
# Both matrices act on XYZ relative to white; their rows sum to one, so gray stays gray.
_RGB_TO_RELATIVE = (_RGB_TO_XYZ / _WHITE_XYZ[:, None]).astype(np.float32)
_RELATIVE_TO_RGB = (np.linalg.inv(_RGB_TO_XYZ) * _WHITE_XYZ[None, :]).astype(np.float32)
_DELTA = 6.0 / 29.0
_GAMUT_STEPS = 12


def sample_max(dtype: np.dtype) -> int:
    """Largest sample value of an unsigned integer ``dtype``: 255 or 65535."""
    return int(np.iinfo(dtype).max)


def linear_from_srgb(encoded: F32) -> F32:
    """sRGB-encoded values in [0, 1] to linear light in [0, 1]; any shape."""
    low = encoded * np.float32(1 / 12.92)
    high = ((encoded + np.float32(0.055)) * np.float32(1 / 1.055)) ** np.float32(2.4)
    return np.where(encoded <= 0.04045, low, high).astype(np.float32, copy=False)


def srgb_from_linear(linear: F32) -> F32:
    """Linear light in [0, 1] to sRGB-encoded values in [0, 1]; any shape."""
    low = linear * np.float32(12.92)
    high = np.float32(1.055) * np.maximum(linear, 0) ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(linear <= 0.0031308, low, high).astype(np.float32, copy=False)


def _f_from_relative(relative: NDArray) -> NDArray:
    return np.where(relative > _DELTA**3, np.cbrt(relative), relative / (3 * _DELTA**2) + 4 / 29)


def _relative_from_f(f: F32) -> F32:
    linear_part = np.float32(3 * _DELTA**2) * (f - np.float32(4 / 29))
    return np.where(f > np.float32(_DELTA), f * f * f, linear_part)


@functools.lru_cache(maxsize=2)
def _lightness_table(maximum: int) -> F32:
    """L* of every gray level 0..maximum, computed in float64."""
    encoded = np.arange(maximum + 1, dtype=np.float64) / maximum
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return (116 * _f_from_relative(linear) - 16).astype(np.float32)


@functools.lru_cache(maxsize=2)
def _linear_table(maximum: int) -> F32:
    return linear_from_srgb(np.arange(maximum + 1, dtype=np.float32) / np.float32(maximum))


def lightness_from_samples(samples: NDArray) -> F32:
    """CIE L* of scan samples.

    Parameters
    ----------
    samples : (H, W) gray or (H, W, 3) RGB, uint8 or uint16, sRGB-encoded.

    Returns
    -------
    (H, W) float32 in [0, 100]. RGB is reduced through its relative luminance (ITU-R BT.709 weights on linear light).
    """
    maximum = sample_max(samples.dtype)
    if samples.ndim == 2:
        return _lightness_table(maximum)[samples]
    linear = _linear_table(maximum)
    red, green, blue = _RGB_TO_RELATIVE[1]
    luminance = linear[samples[..., 0]] * red
    luminance += linear[samples[..., 1]] * green
    luminance += linear[samples[..., 2]] * blue
    return (116 * _f_from_relative(luminance) - 16).astype(np.float32)


def lab_from_rgb(encoded: F32) -> F32:
    """sRGB-encoded (H, W, 3) float32 in [0, 1] to (3, H, W) float32 L* in [0, 100], a*, b*."""
    relative = np.tensordot(_RGB_TO_RELATIVE, linear_from_srgb(encoded), axes=([1], [2]))
    fx, fy, fz = _f_from_relative(relative).astype(np.float32)
    return np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def _linear_rgb(lightness: F32, chroma_ab: F32) -> F32:
    """(...) L* and (2, ...) a*, b* to (3, ...) linear RGB, which may lie outside [0, 1]."""
    fy = (lightness + np.float32(16)) * np.float32(1 / 116)
    x = _relative_from_f(fy + chroma_ab[0] * np.float32(1 / 500))
    y = _relative_from_f(fy)
    z = _relative_from_f(fy - chroma_ab[1] * np.float32(1 / 200))
    return np.stack([m[0] * x + m[1] * y + m[2] * z for m in _RELATIVE_TO_RGB])


def _in_gamut(linear: F32, slack: float) -> NDArray[np.bool_]:
    return (linear.min(axis=0) >= -slack) & (linear.max(axis=0) <= 1 + slack)


def _fit_chroma(lightness: F32, chroma_ab: F32) -> F32:
    """Scale (2, N) chroma of N out-of-gamut colours down, at constant L* and hue, to the gamut's edge (bisection)."""
    low = np.zeros_like(lightness)
    high = np.ones_like(lightness)
    for _ in range(_GAMUT_STEPS):
        middle = (low + high) * np.float32(0.5)
        inside = _in_gamut(_linear_rgb(lightness, chroma_ab * middle), 1e-6)
        low = np.where(inside, middle, low)
        high = np.where(inside, high, middle)
    return chroma_ab * low


def rgb_from_lab(lightness: F32, chroma_ab: F32) -> F32:
    """L*, a*, b* to sRGB-encoded values; chroma gives way where the colour leaves the gamut, lightness never does.

    Parameters
    ----------
    lightness : (H, W) float32 in [0, 100]
    chroma_ab : (2, H, W) float32

    Returns
    -------
    (H, W, 3) float32 in [0, 1]
    """
    linear = _linear_rgb(lightness, chroma_ab)
    outside = ~_in_gamut(linear, 1e-5)
    if outside.any():
        dull = lightness[outside]
        linear[:, outside] = _linear_rgb(dull, _fit_chroma(dull, chroma_ab[:, outside]))
    return np.moveaxis(srgb_from_linear(np.clip(linear, 0, 1)), 0, -1)


def samples_from_lab(lightness: F32, chroma_ab: F32, dtype: np.dtype) -> NDArray:
    """As :func:`rgb_from_lab`, rounded to (H, W, 3) samples of ``dtype`` (uint8 or uint16)."""
    maximum = np.float32(sample_max(dtype))
    return np.rint(rgb_from_lab(lightness, chroma_ab) * maximum).astype(dtype)
