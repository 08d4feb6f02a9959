"""The possible colours of a cell: those nodes of a square lattice in the a*b* plane that occur in photographs.

A colour between four nodes is distributed over them bilinearly, so the mean of its distribution is the colour itself.

References
----------
Zhang, Isola, Efros, Colorful Image Colorization, ECCV 2016: a distribution over such bins, with more weight for rare
ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

F32 = NDArray[np.float32]

SPACING = 7.0  # units of a*, b*
_REACH = 18  # nodes from gray to the edge of the lattice: 126 units
_LEAST_SHARE = 2e-5  # of all cells; a rarer node is merged into its nearest neighbour
_UNIFORM = 0.5  # share of a uniform distribution mixed into the colours' own before rare colours are weighted


@dataclass(frozen=True)
class Bins:
    """The nodes of the lattice that are in use.

    Attributes
    ----------
    centres : (K, 2) float32 a*, b*
    weights : (K,) float32 weights of cells with that colour; 1 on average over the cells
    """

    centres: F32
    weights: F32

    @classmethod
    def of(cls, chroma: NDArray, uniform: float = _UNIFORM) -> Bins:
        """The bins for the colours of cells, (N, 2)."""
        side = 2 * _REACH + 1
        counts = np.zeros(side * side)
        for nodes, shares in _corners(torch.from_numpy(np.asarray(chroma, np.float32))):
            counts += np.bincount(nodes.numpy(), shares.numpy(), minlength=side * side)
        share = counts / counts.sum()
        used = np.flatnonzero(share >= _LEAST_SHARE)
        rows, columns = np.divmod(used, side)
        centres = np.stack([rows - _REACH, columns - _REACH], axis=1).astype(np.float32) * np.float32(SPACING)
        kept = share[used] / share[used].sum()
        weights = 1 / ((1 - uniform) * kept + uniform / len(used))
        return cls(centres, (weights / (weights * kept).sum()).astype(np.float32))


class SoftBins:
    """Colours as distributions over ``bins``, on a device."""

    def __init__(self, bins: Bins, device: torch.device | str = "cpu") -> None:
        side = 2 * _REACH + 1
        lattice = np.stack(np.divmod(np.arange(side * side), side), axis=1) - _REACH
        apart = ((lattice[:, None] * SPACING - bins.centres[None]) ** 2).sum(axis=2)
        self._nearest = torch.from_numpy(apart.argmin(axis=1)).to(device)  # the nearest bin of every node
        self.centres = torch.from_numpy(bins.centres).to(device)
        self.weights = torch.from_numpy(bins.weights).to(device)

    def shares(self, chroma: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The four bins of (M, 2) colours and the share of the colour in each: pairs of (M,)."""
        return [(self._nearest[nodes], shares) for nodes, shares in _corners(chroma)]

    def cross_entropy(self, logits: Tensor, chroma: Tensor) -> Tensor:
        """Mean cross-entropy of (M, K) ``logits`` to (M, 2) colours, weighted by the rarity of their bins."""
        logs = torch.log_softmax(logits, dim=1)
        loss, weight = logits.new_zeros(len(logits)), logits.new_zeros(len(logits))
        for nodes, shares in self.shares(chroma):
            loss = loss - shares * logs.gather(1, nodes[:, None])[:, 0]
            weight = weight + shares * self.weights[nodes]
        return (loss * weight).sum() / weight.sum()

    def mean(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """(M, 2) mean colours of the distributions, sharpened by a ``temperature`` below 1."""
        return torch.softmax(logits / temperature, dim=1) @ self.centres


def _corners(chroma: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The four nodes around each of (M, 2) colours, numbered row by row, and their bilinear shares."""
    side = 2 * _REACH + 1
    places = (chroma / SPACING + _REACH).clamp(0, side - 1 - 1e-4)
    low = places.floor()
    over = places - low
    row, column = low.long().unbind(1)
    found = []
    for down in (0, 1):
        for right in (0, 1):
            share_a = over[:, 0] if down else 1 - over[:, 0]
            share_b = over[:, 1] if right else 1 - over[:, 1]
            found.append(((row + down) * side + column + right, share_a * share_b))
    return found
