"""The half of a picture, for its smaller copies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.writers._levels import halve

_STRIP_SAMPLES = 2**20  # whose products take 8 bytes each


def half(samples: NDArray, nodata: int | None = None) -> NDArray:
    """Mean of each 2 x 2 of (h, w, 3 or 4) samples, rounded; at an odd edge, of the pixels that are there.

    Pixels that are nodata take no part, and colours count as much as they are opaque: nothing bleeds into the picture
    from where there is none. Where there is none at all, there is none in the half.
    """
    if nodata is not None:
        there = (samples[..., :3] != nodata).any(axis=-1)
        means = halve(samples) if there.all() else _weighted_means(samples, there, 3)
        # A mean of other values can be that of nodata.
        means[means == nodata] = nodata + 1 if nodata == 0 else nodata - 1
        means[~_any(there)] = nodata
        return means
    if samples.shape[-1] == 3 or (samples[..., 3] == np.iinfo(samples.dtype).max).all():
        return halve(samples)
    means, alpha = halve(samples), samples[..., 3]
    opaque = _any(alpha > 0)
    means[opaque, :3] = _weighted_means(samples[..., :3], alpha, 3)[opaque]
    return means


def _weighted_means(samples: NDArray, weights: NDArray, channels: int) -> NDArray:
    height, width = samples.shape[:2]
    means = np.empty(((height + 1) // 2, (width + 1) // 2, channels), samples.dtype)
    step = max(2, _STRIP_SAMPLES // (width * channels) // 2 * 2)
    for y in range(0, height, step):
        weight = weights[y : y + step, :, None].astype(np.float64)
        total = np.maximum(_sums(weight), 1e-9)
        means[y // 2 : (y + step) // 2] = np.floor(_sums(samples[y : y + step] * weight) / total + 0.5)
    return means


def _sums(values: NDArray) -> NDArray:
    """Of each 2 x 2 of (h, w, c); what lies outside counts nothing."""
    values = np.pad(values, ((0, values.shape[0] % 2), (0, values.shape[1] % 2), (0, 0)))
    summed: NDArray = values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]
    return summed


def _any(there: NDArray) -> NDArray:
    return _sums(there[..., None].astype(np.uint8))[..., 0] > 0
