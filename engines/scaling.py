"""Shared by all network backends: a fixed batch shape, and the card's scaling on the network's device."""

from __future__ import annotations

from typing import Any, Self

import array_api_compat
import array_api_compat.numpy
import numpy as np
from numpy.typing import NDArray

from engines.spec import EngineSpec, ModelCard

F32 = NDArray[np.float32]


def fill(card: ModelCard, inputs: F32, lightness: F32) -> None:
    """Write L*, and a palette if any, to ``inputs`` (batch, channels, T, U) in the network's units; both are NumPy's.

    Rows without a tile are zero.
    """
    rows = len(lightness)
    np.multiply(lightness[:, :1], np.float32(card.lightness_scale), out=inputs[:rows, :1])
    inputs[:rows, :1] += np.float32(card.lightness_offset)
    if card.takes_palette:
        np.divide(lightness[:, 1:], np.float32(card.chroma_scale), out=inputs[:rows, 1:])
    inputs[rows:] = 0


class ScaledEngine:
    """Base of the network backends: subclasses run the network on one full batch in network units.

    A batch always has ``spec.batch`` rows, padded with zeros: one shape means one set of kernels, so a tile's bytes do
    not depend on the number of tiles in its batch.

    A subclass whose network works in other memory sets the namespace of its arrays, such as ``array_api_compat.cupy``,
    and overrides :meth:`_run`, which then gets arrays of that namespace; upload and download follow from it.
    """

    array_namespace: Any = array_api_compat.numpy

    def __init__(self, card: ModelCard, spec: EngineSpec) -> None:
        self._card = card
        self._shape = (spec.batch, card.channels, *spec.tile_yx)

    def to_device(self, array: NDArray[Any]) -> Any:
        """A NumPy array in the namespace."""
        return self.array_namespace.asarray(array)

    def to_host(self, array: Any) -> NDArray[Any]:
        """An array of the namespace as NumPy."""
        return np.asarray(array_api_compat.to_device(array, "cpu"))

    def predict(self, lightness: Any) -> Any:
        """(N, 1, T, U) L* in [0, 100] to (N, 2, T, U) a*, b*; N at most the spec's batch.

        The input is (N, 3, T, U) if the card takes a palette.

        Arrays are of the namespace, or NumPy's, which are transferred there and back.
        """
        xp = self.array_namespace
        if isinstance(lightness, np.ndarray) and xp is not array_api_compat.numpy:
            return self.to_host(self.predict(self.to_device(lightness)))
        rows = lightness.shape[0]
        inputs = xp.zeros(self._shape, dtype=xp.float32, device=array_api_compat.device(lightness))
        inputs[:rows, :1, ...] = lightness[:, :1, ...] * self._card.lightness_scale
        inputs[:rows, :1, ...] += self._card.lightness_offset
        if self._card.takes_palette:
            inputs[:rows, 1:, ...] = lightness[:, 1:, ...] / self._card.chroma_scale
        return self._run(inputs)[:rows, ...] * self._card.chroma_scale

    def _fill(self, inputs: F32, lightness: F32) -> None:
        """:func:`fill` with the engine's own card."""
        fill(self._card, inputs, lightness)

    def _chroma(self, outputs: F32, rows: int) -> F32:
        """A copy of the first ``rows`` of the network's output, NumPy's, as a*, b*."""
        return outputs[:rows] * np.float32(self._card.chroma_scale)

    def _run(self, inputs: Any) -> Any:
        """(batch, channels, T, U) network input to (batch, 2, T, U) network output, C-contiguous; thread-safe."""
        raise NotImplementedError

    def close(self) -> None:
        """Release the runtime's memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
