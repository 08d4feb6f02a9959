"""What every network backend shares: fixed batch shape and the card's scaling of lightness and chroma."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from engines.spec import EngineSpec, ModelCard

F32 = NDArray[np.float32]


class ScaledEngine:
    """Base of the network backends: subclasses run the network on one full batch in network units.

    A batch is always run at ``spec.batch`` rows, short ones filled up with zeros: one shape means one set of kernels,
    so a tile's bytes do not depend on how many others came with it.
    """

    def __init__(self, card: ModelCard, spec: EngineSpec) -> None:
        self._card = card
        self._shape = (spec.batch, 1, *spec.tile_yx)

    def predict(self, lightness: F32) -> F32:
        """(N, 1, T, U) L* in [0, 100] to (N, 2, T, U) a*, b*; N at most the spec's batch."""
        inputs = np.empty(self._shape, np.float32)
        self._fill(inputs, lightness)
        return self._chroma(self._run(inputs), len(lightness))

    def _fill(self, inputs: F32, lightness: F32) -> None:
        """Write L* to ``inputs`` (batch, 1, T, U) in network units; rows without a tile are zero."""
        rows = len(lightness)
        np.multiply(lightness, np.float32(self._card.lightness_scale), out=inputs[:rows])
        inputs[:rows] += np.float32(self._card.lightness_offset)
        inputs[rows:] = 0

    def _chroma(self, outputs: F32, rows: int) -> F32:
        """A copy of the first ``rows`` of the network's output as a*, b*."""
        return outputs[:rows] * np.float32(self._card.chroma_scale)

    def _run(self, inputs: F32) -> F32:
        """(batch, 1, T, U) network input to (batch, 2, T, U) network output; thread-safe."""
        raise NotImplementedError

    def close(self) -> None:
        """Release the runtime's memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
