"""How far a coloured picture is from the truth.

Pictures are (H, W, 3) float arrays of sRGB-encoded values in [0, 1]; Lab comes from :mod:`pipeline.colour.lab`, the
same conversion that made the network's targets.

No single number ranks colorizations: squared error favours gray, colourfulness alone favours noise. Read CIEDE2000
together with the ratio of colourfulness (:mod:`pipeline.colour.colourfulness`) to the truth's.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.metrics import structural_similarity

from pipeline.colour.ciede2000 import ciede2000 as of_colours
from pipeline.colour.lab import lab_from_rgb


def ciede2000(result: NDArray, truth: NDArray) -> float:
    """Mean CIEDE2000 colour difference between two pictures; about 1 is just visible.

    References
    ----------
    Sharma, Wu, Dalal, The CIEDE2000 color-difference formula, Color Research and Application 30(1), 2005.
    """
    return float(of_colours(*(lab_from_rgb(np.asarray(rgb, np.float32)) for rgb in (result, truth))).mean())


def mse(result: NDArray, truth: NDArray) -> float:
    """Mean squared error, in squared units of [0, 1].

    >>> mse(np.zeros((2, 2, 3)), np.full((2, 2, 3), 0.5))
    0.25
    """
    return float(np.square(np.asarray(result, np.float64) - np.asarray(truth, np.float64)).mean())


def psnr(result: NDArray, truth: NDArray) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1; infinite for equal pictures."""
    error = mse(result, truth)
    return -10 * math.log10(error) if error > 0 else math.inf


def ssim(result: NDArray, truth: NDArray) -> float:
    """Mean structural similarity over the channels (Wang et al., IEEE TIP 2004), at most 1; sides of at least 7 px."""
    return float(structural_similarity(np.asarray(result), np.asarray(truth), channel_axis=-1, data_range=1.0))


def bootstrap_weights(groups: Sequence[Hashable], seed: int = 0, draws: int = 2000) -> NDArray[np.float64]:
    """How often each value is drawn in each of ``draws`` resamplings of whole groups, with replacement.

    The same weights serve all means of a table, so that differences between its rows are paired.

    Parameters
    ----------
    groups : (N,) the photograph each picture was cut from. Crops of one photograph are alike: drawing them one by one
        would make an interval too narrow.

    Returns
    -------
    (draws, N) whole numbers

    Raises
    ------
    ValueError : no values.

    References
    ----------
    Field, Welsh, Bootstrapping clustered data, Journal of the Royal Statistical Society B 69(3), 2007.
    """
    if not groups:
        raise ValueError("no values to draw from; give at least one")
    index = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    count = len(index)
    drawn = np.random.default_rng(seed).integers(count, size=(draws, count))
    drawn += count * np.arange(draws)[:, None]  # the histograms of all draws in one pass
    times = np.bincount(drawn.ravel(), minlength=draws * count).reshape(draws, count)
    return times[:, [index[group] for group in groups]].astype(np.float64)


def bootstrap_interval(
    values: ArrayLike, weights: NDArray[np.float64], over: ArrayLike | None = None
) -> tuple[float, float]:
    """95 % percentile interval of the mean of ``values``, or of its ratio to the mean of ``over``.

    Parameters
    ----------
    values, over : (N,) one number for each picture
    weights : (draws, N) from :func:`bootstrap_weights`
    """
    numbers = np.asarray(values, np.float64)
    divisor = np.ones_like(numbers) if over is None else np.asarray(over, np.float64)
    low, high = np.percentile(weights @ numbers / (weights @ divisor), [2.5, 97.5])
    return float(low), float(high)
