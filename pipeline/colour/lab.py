"""Gray, RGB and CIE L*a*b*: all conversions between scan samples and the generator's input and output.

The white is D65 taken as the row sums of the sRGB matrix, so that a neutral sample has a* = b* = 0 to the last bit of
float32. Lightness always comes from the scan; only chroma is predicted. If L*, a*, b* are outside the sRGB gamut, the
chroma is scaled down at constant lightness and hue angle until the colour fits.

References
----------
IEC 61966-2-1 (sRGB transfer curve and primaries); CIE 15:2018, 8.2.1 (CIE 1976 L*a*b*).
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.support.array_backend import Array, Device
from pipeline.support.row_bands import row_strips
from pipeline.types import Tone

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
_GAMUT_SLACK = np.float32(1e-5)  # in linear light: float32 noise of a colour on the gamut's edge
_FIT_SLACK = np.float32(1e-6)
# Steps of the sRGB encoding table over the square root of linear light. In this variable the curve is nearly linear (at
# most 1.5 full scales per unit), so the table's error is 0.02 of a level at 8 bits and 0.2 of a level at 16.
_ENCODE_STEPS = {255: 2**13, 65535: 2**18}


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
    # The linear part is the cube's tangent at delta, so one expression in max(f, delta) covers both pieces.
    bent = np.maximum(f, np.float32(_DELTA))
    f = f - bent
    f *= np.float32(3 * _DELTA**2)
    cube = bent * bent
    cube *= bent
    cube += f
    return cube


@functools.lru_cache(maxsize=2)
def _lightness_table(maximum: int) -> F32:
    """L* of every gray level 0..maximum, computed in float64."""
    encoded = np.arange(maximum + 1, dtype=np.float64) / maximum
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return (116 * _f_from_relative(linear) - 16).astype(np.float32)


@functools.lru_cache(maxsize=2)
def _linear_table(maximum: int) -> F32:
    return linear_from_srgb(np.arange(maximum + 1, dtype=np.float32) / np.float32(maximum))


def lightness_of_luminance(luminance: NDArray) -> NDArray:
    """CIE L* of luminance relative to white; any shape, in the precision of the input."""
    return 116 * _f_from_relative(luminance) - 16


def luminance_weights() -> tuple[float, float, float]:
    """Weights of linear red, green and blue light of sRGB's primaries in the luminance."""
    red, green, blue = _RGB_TO_XYZ[1]
    return float(red), float(green), float(blue)


def lightness_from_samples(samples: NDArray, tone: Tone = "srgb") -> F32:
    """CIE L* of scan samples.

    Parameters
    ----------
    samples : (H, W) gray or (H, W, 3) RGB, uint8 or uint16
    tone : their meaning: sRGB-encoded, or (gray only) L* itself over full scale

    Returns
    -------
    (H, W) float32 in [0, 100]. RGB is reduced through its relative luminance (ITU-R BT.709 weights on linear light).
    """
    maximum = sample_max(samples.dtype)
    if tone == "lightness":
        return samples * np.float32(100 / maximum)
    if samples.ndim == 2:
        return _looked_up(_lightness_table(maximum), samples)
    lightness = np.empty(samples.shape[:2], np.float32)
    for rows in row_strips(lightness.shape):
        lightness[rows] = _lightness_from_rgb(samples[rows], _linear_table(maximum))
    return lightness


def lightness_on(device: Device, samples: NDArray) -> Array:
    """As :func:`lightness_from_samples`, computed on ``device``, to which the samples are uploaded unchanged.

    For gray the result is equal to the bit. For RGB a power replaces the cube root, which the array API lacks: results
    differ by at most 1e-5.
    """
    if device.is_host:
        return lightness_from_samples(samples)
    xp, maximum, shape_yx = device.xp, sample_max(samples.dtype), samples.shape[:2]
    seen = device.up(samples)

    def looked_up(table: F32, levels: Array) -> Array:
        return xp.take(device.up(table), xp.astype(xp.reshape(levels, (-1,)), xp.int32), axis=0)

    if samples.ndim == 2:
        return xp.reshape(looked_up(_lightness_table(maximum), seen), shape_yx)
    linear = _linear_table(maximum)
    red, green, blue = (
        looked_up(linear, seen[:, :, channel]) * float(weight) for channel, weight in enumerate(_RGB_TO_RELATIVE[1])
    )
    luminance = red + green + blue
    bright = luminance ** (1 / 3) * 116.0 - 16.0
    lightness = xp.where(luminance <= _DELTA**3, luminance * (116 / (3 * _DELTA**2)), bright)
    return xp.reshape(lightness, shape_yx)


def _looked_up(table: NDArray, places: NDArray) -> NDArray:
    """``table`` at ``places`` (H, W), unsigned integers inside it.

    Tables of 2^8 and 2^16 places are OpenCV's kind, for as many bits of a place. It is faster than NumPy, which
    converts every place to 64 bits first.
    """
    if table.size == 1 << 8 * places.itemsize:
        found: NDArray = cv2.LUT(places, table)
        return found
    # The places are in range; the default mode of take would check that again, more slowly.
    return table.take(places, mode="clip")


def _lightness_from_rgb(samples: NDArray, linear: F32) -> F32:
    red, green, blue = _RGB_TO_RELATIVE[1]
    luminance = linear.take(samples[..., 0])
    luminance *= red
    for channel, weight in ((1, green), (2, blue)):
        part = linear.take(samples[..., channel])
        part *= weight
        luminance += part
    # CIE's lightness is a cube root down to delta**3 and linear below; dark pixels are few, so patch them.
    lightness = np.cbrt(luminance)
    lightness *= np.float32(116)
    lightness -= np.float32(16)
    dark = luminance <= np.float32(_DELTA**3)
    if dark.any():
        lightness[dark] = luminance[dark] * np.float32(116 / (3 * _DELTA**2))
    return lightness


def lab_from_rgb(encoded: F32) -> F32:
    """sRGB-encoded (H, W, 3) float32 in [0, 1] to (3, H, W) float32 L* in [0, 100], a*, b*."""
    relative = np.tensordot(_RGB_TO_RELATIVE, linear_from_srgb(encoded), axes=([1], [2]))
    fx, fy, fz = _f_from_relative(relative).astype(np.float32)
    return np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def _rgb_from_xz(x: F32, y_parts: tuple[F32, F32, F32], z: F32) -> tuple[F32, F32, F32]:
    """Linear R, G, B of relative X, Z; ``y_parts`` is Y times its column of the matrix."""
    channels = []
    for row, y_part in zip(_RELATIVE_TO_RGB, y_parts, strict=True):
        channel = x * row[0]
        channel += y_part
        channel += z * row[2]
        channels.append(channel)
    return channels[0], channels[1], channels[2]


def _y_parts(y: F32) -> tuple[F32, F32, F32]:
    red, green, blue = _RELATIVE_TO_RGB[:, 1]
    return y * red, y * green, y * blue


def _in_gamut(red: F32, green: F32, blue: F32, slack: np.float32) -> NDArray[np.bool_]:
    inside = np.minimum(np.minimum(red, green), blue) >= -slack
    inside &= np.maximum(np.maximum(red, green), blue) <= np.float32(1) + slack
    return inside


def _fit_chroma(fy: F32, step_x: F32, step_z: F32) -> tuple[F32, F32, F32]:
    """Linear R, G, B at the gamut's edge: chroma scaled down at constant L* and hue, by bisection.

    ``fy`` is (L* + 16) / 116, ``step_x`` a* / 500 and ``step_z`` -b* / 200, all (N,). The edge is found to 1/4096 of
    the requested chroma, always from inside.
    """
    parts = _y_parts(_relative_from_f(fy))
    scale = np.zeros_like(fy)
    half = np.float32(0.5)
    for _ in range(_GAMUT_STEPS):
        middle = scale + half
        x, z = _relative_from_f(fy + step_x * middle), _relative_from_f(fy + step_z * middle)
        scale += _in_gamut(*_rgb_from_xz(x, parts, z), _FIT_SLACK) * half
        half *= np.float32(0.5)
    return _rgb_from_xz(_relative_from_f(fy + step_x * scale), parts, _relative_from_f(fy + step_z * scale))


def _linear_in_gamut(lightness: F32, chroma_ab: F32) -> tuple[F32, F32, F32]:
    """Linear R, G, B in [0, 1], each in the shape of ``lightness`` (any), of colours mapped into the gamut."""
    fy = lightness + np.float32(16)
    fy *= np.float32(1 / 116)
    step_x = chroma_ab[0] * np.float32(1 / 500)
    step_z = chroma_ab[1] * np.float32(-1 / 200)
    parts = _y_parts(_relative_from_f(fy))
    channels = _rgb_from_xz(_relative_from_f(fy + step_x), parts, _relative_from_f(fy + step_z))
    outside = np.flatnonzero(~_in_gamut(*channels, _GAMUT_SLACK))
    if outside.size:
        fitted = _fit_chroma(fy.take(outside), step_x.take(outside), step_z.take(outside))
        for channel, edge in zip(channels, fitted, strict=True):
            channel.reshape(-1)[outside] = edge
    for channel in channels:
        np.clip(channel, 0, 1, out=channel)
    return channels


@functools.lru_cache(maxsize=2)
def _encode_table(maximum: int) -> NDArray:
    """sRGB samples 0..maximum at even steps of the square root of linear light; computed in float64.

    At 8 bits the rest of 2^16 places is never looked up: :func:`_looked_up` is faster with so many.
    """
    steps = _ENCODE_STEPS[maximum]
    linear = (np.arange(steps + 1, dtype=np.float64) / steps) ** 2
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table: NDArray = np.rint(encoded * maximum).astype(np.min_scalar_type(maximum))
    return np.pad(table, (0, max(0, 2**16 - table.size)))


def rgb_from_lab(lightness: F32, chroma_ab: F32) -> F32:
    """L*, a*, b* to sRGB-encoded values; for a colour outside the gamut chroma is reduced, lightness never changes.

    Parameters
    ----------
    lightness : (H, W) float32 in [0, 100]
    chroma_ab : (2, H, W) float32

    Returns
    -------
    (H, W, 3) float32 in [0, 1]
    """
    rgb = np.empty((*lightness.shape, 3), np.float32)
    for rows in row_strips(lightness.shape):
        for index, channel in enumerate(_linear_in_gamut(lightness[rows], chroma_ab[:, rows])):
            rgb[rows, :, index] = srgb_from_linear(channel)
    return rgb


def samples_from_lab(lightness: F32, chroma_ab: F32, dtype: np.dtype) -> NDArray:
    """As :func:`rgb_from_lab`, rounded to (H, W, 3) samples of ``dtype`` (uint8 or uint16).

    The transfer curve comes from a table, which may round to the wrong neighbour if the value is within 0.2 of a level
    of the middle between two levels (0.02 at 8 bits). Gray is exact: a* = b* = 0 with the lightness of a gray sample
    gives that sample three times.
    """
    maximum = sample_max(dtype)
    table = _encode_table(maximum)
    steps = np.float32(_ENCODE_STEPS[maximum])
    place = np.uint16 if steps < 2**16 else np.intp
    samples = np.empty((*lightness.shape, 3), table.dtype)
    for rows in row_strips(lightness.shape):
        planes = []
        for channel in _linear_in_gamut(lightness[rows], chroma_ab[:, rows]):
            np.sqrt(channel, out=channel)
            channel *= steps
            channel += np.float32(0.5)
            planes.append(_looked_up(table, channel.astype(place)))
        # NumPy would write every third sample of a row, which is three times slower.
        samples[rows] = cv2.merge(planes)
    return samples


_HALF_BITS = np.uint32(0x8FFF_E000).view(np.int32)


def chroma_from_half(half: NDArray[np.float16], scale: float) -> NDArray[np.float32]:
    """``half`` times ``scale`` in float32; any shape, finite values.

    NumPy converts half to single precision in software, at 3.0 ns for a pixel's a* and b*; this takes 0.4 ns. Sign,
    exponent and fraction are shifted to their positions in single precision; a multiplication then corrects the
    exponent, whose bias is larger by 112 there, and normalizes subnormal halves.
    """
    bits = np.ascontiguousarray(half).view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= _HALF_BITS  # sign extension also put the sign into the three bits below its place
    single = bits.view(np.float32)
    single *= np.float32(2.0**112 * scale)
    return single
