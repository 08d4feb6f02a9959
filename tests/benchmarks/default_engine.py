"""The engine that a run of ``efficientnet-unet`` takes by itself, for measuring it alone.

That model sees nothing but its tile, so a batch of tiles is all that its engine needs.
"""

from __future__ import annotations

from engines.select import choose
from engines.spec import EngineSpec

MODEL = "efficientnet-unet"


def default_spec(tile_yx: tuple[int, int], batch: int, threads: int, streams: int) -> EngineSpec:
    """What ``auto`` takes for :data:`MODEL`."""
    choice, model = choose(model=MODEL)
    return EngineSpec(choice.backend, str(model.folder), tile_yx, batch, threads, streams, choice.precision)
