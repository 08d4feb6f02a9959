"""The palette network of a model: from a shrunk scan, or a window of one, to a distribution over colours per cell.

It is an engine like the generator, with two files in a row. It runs on the backend that computes the tiles, in the
fastest precision whose palettes look the same (:mod:`engines.measure.parity`). If that backend does not support palette
networks, or no precision keeps the palette, the processors compute it in float32. The choice is made once per run, so
that all workers compute the same palettes.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineUnavailableError
from engines.registry import open_engine, usable_version
from engines.spec import PALETTE, EngineSpec, Model, PaletteCard, find_model

F32 = NDArray[np.float32]

# Both files in float32 and their activations; measured in a separate process.
PALETTE_BYTES = 350 * 2**20
BATCH = 2  # a picture and its mirror image
_PLAIN = ("openvino", "onnxruntime")


def palette_spec(model: Model, threads: int = 1, backend: str = "", precision: str = "fp32") -> EngineSpec:
    """The engine of a model's palette network; without ``backend`` the plainest one on processors.

    Raises
    ------
    ModelError : the model has none. EngineUnavailableError : no backend for processors is usable.
    """
    side = model.as_network(PALETTE).card.size_multiple
    name = backend or plain_backend()
    return EngineSpec(name, str(model.folder), (side, side), BATCH, threads, 1, precision, PALETTE)


def plain_backend() -> str:
    """The plainest usable backend for processors."""
    for name in _PLAIN[:-1]:
        try:
            usable_version(name)
            return name
        except EngineUnavailableError:
            continue
    return _PLAIN[-1]


class PaletteNetwork:
    """A model's opened palette network. Use as a context manager; :meth:`see` may be called from several threads.

    Parameters
    ----------
    spec : from :func:`palette_spec`

    Raises
    ------
    ModelError : the model has none, or a file that cannot be loaded. EngineUnavailableError : backend not usable.
    """

    def __init__(self, spec: EngineSpec) -> None:
        card = find_model(spec.model_folder).as_network(PALETTE).card.palette
        assert card is not None
        self.card: PaletteCard = card
        self._engine = open_engine(spec)

    def see(self, lightness: F32) -> F32:
        """(side_px, side_px) L* to the (K, cells, cells) probabilities of each colour, float32.

        It is the mean over the picture and its mirror image, so that a mirrored scan has the mirrored palette.
        """
        gray = gray_of(lightness)
        pair = np.stack([gray, gray[:, ::-1]])[:, None]
        shares = shares_of(self._engine.predict(np.ascontiguousarray(pair)), self.card)
        mean: F32 = (shares[0] + shares[1][:, :, ::-1]) * np.float32(0.5)
        return mean

    def close(self) -> None:
        """Release the runtime's memory."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def shares_of(logits: F32, card: PaletteCard) -> F32:
    """(N, K, cells, cells) logits to the probabilities of each colour."""
    scaled = logits / np.float32(card.temperature)
    scaled -= scaled.max(axis=1, keepdims=True)
    shares: F32 = np.exp(scaled)
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


# Engines import nothing from the pipeline, where the next two are mean_ab (pipeline.tiling.palette) and rgb_from_lab
# (pipeline.colour.lab): tests.engines.test_palette.test_what_the_pipeline_has_too_is_the_same compares them.
def mean_colours(logits: F32, card: PaletteCard) -> F32:
    """(N, K, cells, cells) logits to the (N, 2, cells, cells) a*, b* of the resulting palette."""
    colours_ab = np.array(card.colours_ab, np.float32) * np.float32(card.gain)
    means: F32 = np.einsum("nkyx,kc->ncyx", shares_of(logits, card), colours_ab)
    return means


def gray_of(lightness: F32) -> F32:
    """L* to sRGB-encoded gray in [0, 1] (CIE 15:2018, 8.2.1 and IEC 61966-2-1)."""
    f = (lightness.clip(0, 100) + 16) / 116
    luminance = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    encoded = np.where(luminance <= 0.0031308, 12.92 * luminance, 1.055 * luminance.clip(1e-9) ** (1 / 2.4) - 0.055)
    return encoded.astype(np.float32)
