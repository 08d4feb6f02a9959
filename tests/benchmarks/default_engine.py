"""The engine that a run takes by itself, for measuring it alone."""

from __future__ import annotations

from engines.select import choose
from engines.spec import EngineSpec


def default_spec(tile_yx: tuple[int, int], batch: int, threads: int, streams: int) -> EngineSpec:
    """What ``auto`` takes for the default model."""
    choice, model = choose()
    return EngineSpec(choice.backend, str(model.folder), tile_yx, batch, threads, streams, choice.precision)
