"""No network: both planes are the tile's lightness, which the card scales to zero when a picture is made.

It serves tests of everything around the network. The planes are L* itself, so a shifted, dropped or wrongly weighted
tile shows in the stored chroma, while the exported picture equals the scan.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from engines.spec import EngineSpec, Model, ModelCard

RANK = None
REASON = "for tests"
PRECISIONS = ("fp32",)
# Used instead of a model's card: any tile size, and a chroma scale of zero.
CARD = ModelCard(
    name="identity",
    generator="none",
    lightness_scale=1.0,
    lightness_offset=0.0,
    chroma_scale=0.0,
    size_multiple=1,
    sha256="",
    colour_space="none: both planes are L*",
)


def version() -> str:
    return "1"


class IdentityEngine:
    """(N, 1, T, U) in, the same plane twice out, rounded to float16 like stored chroma.

    A blend that is correct to float32 rounding then stores exactly what was predicted.
    """

    def predict(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.repeat(lightness.astype(np.float16).astype(np.float32), 2, axis=1)

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_engine(model: Model, spec: EngineSpec) -> IdentityEngine:
    return IdentityEngine()
