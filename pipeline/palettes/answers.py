"""Choosing colours from a distribution over them: the mean, likelier colours than the mean, and the best answers.

The mean of a cell's possible colours is the safest choice and the dullest. Sharpening the distribution first moves it
towards the likeliest colour. If a network is unsure, its answers differ in kind: a coat is brown or green, and their
mean is neither.

References
----------
Zhang, Isola, Efros, Colorful Image Colorization, ECCV 2016 (section 2.3: the annealed mean).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.palettes import MOST_ANSWERS
from pipeline.palettes.doubt import GUESS_FROM, LIKELY_BELOW

F32 = NDArray[np.float32]

# The next best colour stands alone from this share of the best one's on, and does not count up to that.
_STANDS_FROM, _COUNTS_FROM = 0.3, 0.05
# Widths of Gaussians, in cells: what is best is decided over neighbours, or it would change from cell to cell.
_TOGETHER_CELLS, _FADE_CELLS = 1.0, 0.7
_NEAR_AB = 16.0  # colours closer than this in a*, b* are one answer
_LEAST_TEMPERATURE = 0.05
_VIVID_GAIN = 0.5


@dataclass(frozen=True)
class Taste:
    """How to choose colours from a distribution.

    Attributes
    ----------
    vivid : 0 is the mean, 1 the likeliest colour alone, with half as much chroma again
    is_cautious : fade guesses towards gray
    answer : 1, or 2 or 3 for the next best colours (:func:`next_best`)
    """

    vivid: float = 0.0
    is_cautious: bool = False
    answer: int = 1

    @property
    def gain(self) -> float:
        """Factor of the chroma: the likeliest colours of a network that is often unsure are duller than photographs."""
        return 1 + _VIVID_GAIN * self.vivid


PLAIN = Taste()


def annealed(distribution: F32, vivid: float) -> F32:
    """(K, rows, columns) shares raised to the power of 1 / (1 - vivid) and normalized to sum 1; unchanged at 0."""
    if vivid == 0:
        return distribution
    temperature = max(1 - vivid, _LEAST_TEMPERATURE)
    shares = (distribution / distribution.max(axis=0)) ** np.float32(1 / temperature)
    sharpened: F32 = (shares / shares.sum(axis=0)).astype(np.float32)
    return sharpened


def sureness(expected: F32) -> F32:
    """Share of its colour that a cautious cell keeps, by its expected CIEDE2000: 1 if likely, 0 for a guess."""
    share: F32 = np.clip((GUESS_FROM - expected) / (GUESS_FROM - LIKELY_BELOW), 0, 1).astype(np.float32)
    return share


def answers_of(distribution: F32, colours_ab: F32, count: int = MOST_ANSWERS) -> F32:
    """The likeliest answers of each cell, best first.

    An answer is the colour with most probability around it, together with the colours within 16 units of it in a*, b*;
    the next answer is chosen among the remaining colours.

    Returns
    -------
    (count, 3, rows, columns) float32 : a*, b*, and the answer's share of the distribution, 0 to 1
    """
    apart = np.linalg.norm(colours_ab[:, None] - colours_ab[None], axis=2)
    near = (apart < _NEAR_AB).astype(np.float32)
    rows = [_answers(row, colours_ab, near, count) for row in distribution.swapaxes(0, 1)]
    return np.stack(rows, axis=2)


def next_best(distribution: F32, colours_ab: F32, mean_ab: F32, answer: int) -> F32:
    """(2, rows, columns) a*, b*: the second or third of each cell's answers, where it has one; elsewhere its mean.

    A cell whose next answer is about as likely as its best takes it; a sure one keeps its mean; others are mixed.
    Answers are those of neighbouring cells together, so that one thing keeps one colour.

    Parameters
    ----------
    distribution : (K, rows, columns), over the (K, 2) ``colours_ab``
    mean_ab : (2, rows, columns) the cells' first choice
    answer : 2 or more
    """
    together = np.stack([cv2.GaussianBlur(plane, (0, 0), _TOGETHER_CELLS) for plane in distribution])
    best, *others = answers_of(together, colours_ab, answer)
    ratio = others[-1][2] / np.maximum(best[2], 1e-9)
    share = np.clip((ratio - _COUNTS_FROM) / (_STANDS_FROM - _COUNTS_FROM), 0, 1).astype(np.float32)
    mixed = mean_ab * (1 - share) + others[-1][:2] * share
    return np.stack([cv2.GaussianBlur(np.ascontiguousarray(plane), (0, 0), _FADE_CELLS) for plane in mixed])


def _answers(distribution: F32, colours_ab: F32, near: F32, count: int) -> F32:
    """(count, 3, columns) answers for one row of cells, so that memory stays small."""
    left = distribution.copy()
    answers = np.zeros((count, 3, left.shape[1]), np.float32)
    for answer in answers:
        best = (near @ left).argmax(axis=0)
        taken = left * near[:, best]
        answer[2] = taken.sum(axis=0)
        answer[:2] = colours_ab.T @ taken / np.maximum(answer[2], 1e-9)
        left -= taken
    return answers
