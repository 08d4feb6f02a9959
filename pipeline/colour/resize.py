"""Area means of planes and linear interpolation between them, on any array namespace.

Everything is elementwise and in a fixed order, so a plane's bytes depend neither on the number of planes in the array
nor on the library. OpenCV does both faster on NumPy arrays, a plane at a time; the tests compare the two.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from pipeline.support.array_backend import Array, Device


def area_means(planes: Array, counts_yx: tuple[int, int], device: Device) -> Array:
    """Means over equal parts, which may cut through pixels: (..., T, U) to (..., rows, columns), float32."""
    return _means(_means(planes, counts_yx[0], -2, device), counts_yx[1], -1, device)


def _means(planes: Array, count: int, axis: int, device: Device) -> Array:
    """Means along ``axis``, which is -1 or -2."""
    xp, shape = device.xp, planes.shape
    size, behind = shape[axis], shape[len(shape) + axis + 1 :]
    if size % count == 0:
        parts = xp.reshape(planes, (*shape[: len(shape) + axis], count, size // count, *behind))
        return _sum_of(parts, axis) * (1 / (size // count))
    total = None
    for index, weight in zip(*_shares(size, count), strict=True):
        weights = xp.reshape(device.up(weight), (count,) if axis == -1 else (count, 1))
        share = xp.take(planes, device.up(index), axis=axis) * weights
        total = share if total is None else total + share
    return total


def _sum_of(parts: Array, axis: int) -> Array:
    """Sum along ``axis``, which is -1 or -2: adds the two halves while the length is even, then one by one."""

    def at(which: slice | int) -> Array:
        return parts[..., which] if axis == -1 else parts[..., which, :]

    while parts.shape[axis] % 2 == 0:
        parts = at(slice(0, None, 2)) + at(slice(1, None, 2))
    total = at(0)
    for index in range(1, parts.shape[axis]):
        total = total + at(index)
    return total


@functools.lru_cache(maxsize=16)
def _shares(size: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pixels in each of ``count`` parts of ``size``, and their weights: two arrays (n, count)."""
    edges = np.arange(count + 1) * (size / count)
    first = np.floor(edges[:-1]).astype(np.int64)
    longest = int((np.ceil(edges[1:]) - first).max())
    pixels = first + np.arange(longest)[:, None]
    inside = np.minimum(pixels + 1, edges[1:]) - np.maximum(pixels, edges[:-1])
    weights = np.maximum(inside, 0) * (count / size)
    return np.minimum(pixels, size - 1), weights.astype(np.float32)


class StraightLines:
    """Linear interpolation from the centres of equal parts to pixels, constant beyond the outermost centres."""

    def __init__(self, counts_yx: tuple[int, int], shape_yx: tuple[int, int], device: Device) -> None:
        self._xp = device.xp
        between = [_between(size, count) for size, count in zip(shape_yx, counts_yx, strict=True)]
        self._places = [[device.up(part) for part in each] for each in between]

    def __call__(self, values: Array) -> Array:
        """(..., rows, columns) to (..., T, U), float32."""
        for axis, (low, high, share) in zip((-2, -1), self._places, strict=True):
            share = share[:, None] if axis == -2 else share
            below = self._xp.take(values, low, axis=axis)
            values = below + (self._xp.take(values, high, axis=axis) - below) * share
        return values


def _between(size: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of ``size`` pixels, the parts with centres before and after it, and its position between them."""
    at = np.clip((np.arange(size) + 0.5) * (count / size) - 0.5, 0, count - 1)
    low = np.floor(at).astype(np.int64)
    return low, np.minimum(low + 1, count - 1), (at - low).astype(np.float32)
