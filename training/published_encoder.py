"""The base of all encoders: input scaling, and the names of layers in the published weight files."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn


class PublishedEncoder(nn.Module):
    """A classification network without its classifier, for which weights are published.

    A subclass turns a (N, 3, H, W) picture from :meth:`normalized` into five feature maps, at strides 2, 4, 8, 16 and
    32 with ``channels`` channels; H and W are multiples of 32.

    Parameters
    ----------
    channels : channels of the five maps
    mean, std : mean and deviation of R, G, B in [0, 1] in training; a single number is for all three

    Attributes
    ----------
    PUBLISHED : parts of this class's layer names, with the dots around them, and their counterparts in weight files.
        The class has its own names, and keeps convolution and batch norm side by side in an ``nn.Sequential``, so that
        export can fold one into the other whatever the published names are.
    """

    PUBLISHED: ClassVar[dict[str, str]] = {}

    def __init__(self, channels: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.channels = channels
        # Constants of the architecture, not weights: left out, so that a state dict holds only trained values.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def normalized(self, lightness: Tensor) -> Tensor:
        """(N, 1, H, W) or (N, 3, H, W) in [-1, 1] to a (N, 3, H, W) gray picture scaled as in the weights' training."""
        return ((lightness * 0.5 + 0.5).expand(-1, 3, -1, -1) - self.mean) / self.std

    @staticmethod
    def maps_of(x: Tensor, layers: Iterable[nn.Module], taps: Container[int]) -> list[Tensor]:
        """Outputs of the ``layers``, applied in sequence, at the indices in ``taps``."""
        maps = []
        for index, layer in enumerate(layers):
            x = layer(x)
            if index in taps:
                maps.append(x)
        return maps

    def published_names(self) -> dict[str, str]:
        """Names in this state dict and the published file's names for the same tensors, in order.

        Batch norm's counters are left out: they only matter without a momentum, and old files lack them.
        """
        names = {}
        for own in self.state_dict():
            if own.endswith(".num_batches_tracked"):
                continue
            name = f".{own}"
            for ours, published in self.PUBLISHED.items():
                name = name.replace(ours, published)
            names[own] = name[1:]
        return names
