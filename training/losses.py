"""Losses of the generator and the discriminator.

Discriminators give logits: the sigmoid that the reports draw at their end is part of the cross-entropy here, which is
the same function without overflow.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from training.difference import chroma_difference

_VIVID = 4.0  # chroma vectors of real photographs are mostly below a quarter of the network's range
_HUBER_BETA = 0.05

_CONTENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": lambda fake, truth: functional.l1_loss(fake, truth, reduction="none"),
    "mse": lambda fake, truth: functional.mse_loss(fake, truth, reduction="none"),
    "huber": lambda fake, truth: functional.smooth_l1_loss(fake, truth, beta=_HUBER_BETA, reduction="none"),
}


def saturation(colour: Tensor) -> Tensor:
    """How far each pixel is from gray: (N, 2, H, W) a*, b* or (N, 3, H, W) RGB to (N, 1, H, W), in network units."""
    if colour.shape[1] == 3:
        colour = colour - colour.mean(dim=1, keepdim=True)
    return torch.linalg.vector_norm(colour, dim=1, keepdim=True)


def content_loss(
    name: str, fake: Tensor, truth: Tensor, vivid_weight: float = 0.0, chroma_scale: float = 110.0
) -> Tensor:
    """Mean distance of (N, C, H, W) ``fake`` to ``truth``: "l1", "mse", "huber" or "ciede2000".

    "ciede2000" is for a*, b* only, which are ``chroma_scale`` times the network's output; the loss is a hundredth of
    the CIEDE2000 difference at equal lightness.

    With a ``vivid_weight``, saturated pixels of the truth count more: they are rare, and without a weight predictions
    tend to gray (Zhang et al., ECCV 2016, section 2.2).
    """
    loss = _ciede2000(fake, truth, chroma_scale) if name == "ciede2000" else _CONTENT[name](fake, truth)
    if vivid_weight == 0:
        return loss.mean()
    weight = 1 + vivid_weight * _VIVID * saturation(truth)
    return (loss * weight).sum() / weight.expand_as(loss).sum()


def _ciede2000(fake: Tensor, truth: Tensor, chroma_scale: float) -> Tensor:
    pairs = (colour.permute(0, 2, 3, 1).reshape(-1, 2) * chroma_scale for colour in (fake, truth))
    count, _, height, width = truth.shape
    return chroma_difference(*pairs).reshape(count, 1, height, width) / 100


def _labelled(name: str, logits: Tensor, label: float) -> Tensor:
    target = torch.full_like(logits, label)
    if name == "bce":
        return functional.binary_cross_entropy_with_logits(logits, target)
    return functional.mse_loss(logits, target)


def discriminator_loss(name: str, real: Tensor, fake: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean of the losses for the logits of real and of generated pictures.

    "bce" (Goodfellow et al., 2014), "least-squares" (Mao et al., ICCV 2017) or "hinge" (Lim and Ye, 2017). Label
    smoothing lowers the label of real pictures (bce and least squares; the hinge has no labels).
    """
    if name == "hinge":
        return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())
    return 0.5 * (_labelled(name, real, 1 - label_smoothing) + _labelled(name, fake, 0.0))


def adversarial_loss(name: str, fake: Tensor) -> Tensor:
    """The generator's loss for logits of its own pictures: low if the discriminator takes them for real."""
    return -fake.mean() if name == "hinge" else _labelled(name, fake, 1.0)
