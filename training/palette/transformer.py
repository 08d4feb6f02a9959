"""DINOv2's ViT-S/14: patches of 14 px to tokens that describe their content, which works for gray pictures, too.

The weights come as ONNX inside a package (:mod:`training.palette.published`). This is their network, split into a stem
that stays as published and the last blocks, which training may change.

References
----------
Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024.
Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021.
"""

from __future__ import annotations

from torch import Tensor, cat, nn
from torch.nn import functional

PATCH_PX = 14
WIDTH = 384
HEADS = 6
BLOCKS = 12
# Mean and standard deviation of ImageNet's pictures, by which the published network scales its input.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


class Attention(nn.Module):
    """Self-attention of all tokens: (N, tokens, WIDTH) to the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        count, length, _ = tokens.shape
        query, key, value = (
            part.reshape(count, length, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in self.qkv(tokens).split(WIDTH, dim=2)
        )
        seen = functional.scaled_dot_product_attention(query, key, value)
        return self.out(seen.transpose(1, 2).reshape(count, length, WIDTH))


class Block(nn.Module):
    """Attention and a two-layer network, each added to its input with a learnt scale for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.attention = Attention()
        self.scale1 = nn.Parameter(_ones())
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.expand = nn.Linear(WIDTH, 4 * WIDTH)
        self.contract = nn.Linear(4 * WIDTH, WIDTH)
        self.scale2 = nn.Parameter(_ones())

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.scale1 * self.attention(self.norm1(tokens))
        return tokens + self.scale2 * self.contract(functional.gelu(self.expand(self.norm2(tokens))))


class Stem(nn.Module):
    """The patch embedding, and the first ``blocks`` blocks.

    Parameters
    ----------
    cells : rows and columns of patches; the published position embedding (37 x 37) is resampled to this size on loading
    """

    def __init__(self, blocks: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.patches = nn.Conv2d(3, WIDTH, PATCH_PX, stride=PATCH_PX)
        self.first = nn.Parameter(_ones(1, 1, WIDTH))
        self.places = nn.Parameter(_ones(1, 1 + cells * cells, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))

    def forward(self, lightness: Tensor) -> Tensor:
        """(N, 1, 14 cells, 14 cells) sRGB-encoded gray in [0, 1] to (N, 1 + cells**2, WIDTH)."""
        mean, deviation = (lightness.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
        patches = self.patches((lightness - mean) / deviation).flatten(2).transpose(1, 2)
        tokens = cat([self.first.expand(patches.shape[0], -1, -1), patches], dim=1) + self.places
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


def _ones(*shape: int) -> Tensor:
    return nn.init.ones_(nn.Parameter(Tensor(*(shape or (WIDTH,)))).data)
