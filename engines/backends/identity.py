"""No network: both planes are the tile's lightness, scaled to nothing by the card when a picture is made.

For tests of everything around the network. The planes carry L* itself, so a shifted, dropped or wrongly weighted tile
shows in the stored chroma, while the exported picture is the scan.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from engines.spec import EngineSpec, Model, ModelCard

RANK = None
REASON = "for tests"
PRECISIONS = ("fp32",)
# Takes the place of a model's card: any tile size, and a chroma scale of zero.
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
    """(N, 1, T, U) in, the same plane twice out, on the float16 grid that chroma is kept on.

    On that grid a blend that is right to float32 rounding stores exactly what was predicted.
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
