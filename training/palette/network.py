"""From the stem's tokens to a distribution over colours for each cell: the last published blocks and a small head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.palette.published import Weights, load_block
from training.palette.transformer import BLOCKS, WIDTH, Block

_HIDDEN = 256


class PaletteHead(nn.Module):
    """(N, 1 + cells**2, WIDTH) tokens after ``BLOCKS - trained`` blocks to (N, bins, cells, cells) logits.

    The head sees the tokens of each patch from the stem and from the last block, the last block's token of the whole
    picture, and the neighbouring patches through one convolution.

    Parameters
    ----------
    bins : number of colours to choose from
    cells : rows and columns of patches
    trained : number of last transformer blocks, which start as published and are trained, too
    dropout : share of the head's channels dropped in training
    """

    def __init__(self, bins: int, cells: int, trained: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.cells = cells
        self.blocks = nn.ModuleList(Block() for _ in range(trained))
        self.early, self.late = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.patch = nn.Linear(2 * WIDTH, _HIDDEN)
        self.whole = nn.Linear(WIDTH, _HIDDEN)
        self.near = nn.Sequential(
            nn.GELU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(_HIDDEN, _HIDDEN, 3, padding=1),
            nn.GELU(),
            nn.Dropout2d(dropout),
        )
        self.colours = nn.Conv2d(_HIDDEN, bins, 1)

    def start_published(self, weights: Weights) -> None:
        """Fill the blocks with the published weights."""
        for number, block in enumerate(self.blocks, BLOCKS - len(self.blocks)):
            load_block(block, number, weights)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor) -> Tensor:
        seen = tokens
        for block in self.blocks:
            seen = block(seen)
        early, late = self.early(tokens[:, 1:]), self.late(seen)
        mixed = self.patch(torch.cat([early, late[:, 1:]], dim=2)) + self.whole(late[:, :1])
        grid = mixed.transpose(1, 2).reshape(-1, _HIDDEN, self.cells, self.cells)
        return self.colours(self.near(grid))  # type: ignore[no-any-return]
