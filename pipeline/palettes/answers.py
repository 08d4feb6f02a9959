"""How colours are taken from a distribution over them: the mean, what is likelier than it, and the next best answers.

The mean of all that a cell may be is the safest answer and the dullest one. Sharpening the distribution first moves it
towards the likeliest colour. Where a network is unsure, its answers differ in kind: a coat is brown or green, and their
mean is neither.

References
----------
Zhang, Isola, Efros, Colorful Image Colorization, ECCV 2016 (section 2.3: the annealed mean).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.palettes.doubt import GUESS_FROM, LIKELY_BELOW

F32 = NDArray[np.float32]

MOST_ANSWERS = 3
_NEAR_AB = 16.0  # colours that are nearer than this in a*, b* are one answer
_LEAST_TEMPERATURE = 0.05
_VIVID_GAIN = 0.5


@dataclass(frozen=True)
class Taste:
    """What is taken of a distribution.

    Attributes
    ----------
    vivid : 0 is the mean, 1 the likeliest colour alone, half as strong again
    is_cautious : fade what is a guess towards gray
    """

    vivid: float = 0.0
    is_cautious: bool = False

    @property
    def gain(self) -> float:
        """Of the chroma: the likeliest colours of a network that is often unsure are still duller than photographs."""
        return 1 + _VIVID_GAIN * self.vivid


def annealed(distribution: F32, vivid: float) -> F32:
    """(K, rows, columns) shares raised to the power of 1 / (1 - vivid), which sum to 1 again; at 0 they stay."""
    if vivid == 0:
        return distribution
    temperature = max(1 - vivid, _LEAST_TEMPERATURE)
    shares = (distribution / distribution.max(axis=0)) ** np.float32(1 / temperature)
    sharpened: F32 = (shares / shares.sum(axis=0)).astype(np.float32)
    return sharpened


def sureness(expected: F32) -> F32:
    """Share of its colour that a cell keeps under caution, of its expected CIEDE2000: 1 where likely, 0 for a guess."""
    share: F32 = np.clip((GUESS_FROM - expected) / (GUESS_FROM - LIKELY_BELOW), 0, 1).astype(np.float32)
    return share


def answers_of(distribution: F32, colours_ab: F32, count: int = MOST_ANSWERS) -> F32:
    """The likeliest answers of each cell, best first.

    The colour with most probability around it is one answer, together with what lies within 16 units of it in a*, b*;
    the next one is looked for among the others.

    Returns
    -------
    (count, 3, rows, columns) float32 : a*, b*, and the share of the distribution that means this answer, 0 to 1
    """
    apart = np.linalg.norm(colours_ab[:, None] - colours_ab[None], axis=2)
    near = (apart < _NEAR_AB).astype(np.float32)
    rows = [_answers(row, colours_ab, near, count) for row in distribution.swapaxes(0, 1)]
    return np.stack(rows, axis=2)


def _answers(distribution: F32, colours_ab: F32, near: F32, count: int) -> F32:
    """(count, 3, columns) of one row of cells, so that memory stays small."""
    left = distribution.copy()
    answers = np.zeros((count, 3, left.shape[1]), np.float32)
    for answer in answers:
        best = (near @ left).argmax(axis=0)
        taken = left * near[:, best]
        answer[2] = taken.sum(axis=0)
        answer[:2] = colours_ab.T @ taken / np.maximum(answer[2], 1e-9)
        left -= taken
    return answers
