"""Does an engine still predict the model's colours? Measured on real tiles, as a perceptual colour difference.

The reference is the model's float32 file in ONNX Runtime, one thread, one tile at a time: the plainest way to run it.
The measure is CIEDE2000 between both predictions at the tile's own lightness, over all pixels of all tiles. The 99.9th
percentile decides: a maximum over three million pixels depends on a single pixel, a median hides a wrong corner.

For a palette network, the inputs are the same tiles, each seen as a whole scan, and palettes are compared: the mean
a*, b* of each cell at the cell's own lightness.

An engine must also return the same bytes for a tile alone as in a batch. Otherwise colours depend on the order of the
work, and tiles show seams.

References
----------
CIE 142-2001 (CIEDE2000); about 1 is the smallest visible difference between two colours side by side.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelError
from engines.measure.reference_tiles import COUNT, reference_tiles
from engines.palette import gray_of, mean_colours
from engines.registry import model_for, open_engine
from engines.spec import PALETTE, Engine, EngineSpec, Model
from pipeline.colour.ciede2000 import ciede2000

F32 = NDArray[np.float32]

REFERENCE = "onnxruntime"
# Largest allowed 99.9th percentile of CIEDE2000 for each precision. Float32 engines differ by the order of their sums,
# half precisions stay invisible, int8 is visible only side by side and in few pixels.
BOUNDS = {"fp32": 0.05, "fp16": 0.5, "bf16": 0.5, "int8": 1.5}


@dataclass(frozen=True)
class Parity:
    """The difference of an engine from the reference.

    Attributes
    ----------
    median, p999 : median and 99.9th percentile of CIEDE2000 over all pixels of all tiles
    worst_tile_mean, worst_tile_index : the largest mean over one tile, and its index, from 0
    rows_equal : each row of a batch has the bytes of the same tile alone
    batch_difference : largest difference between the two, in units of a*, b*
    tiles : number of compared tiles
    bound : largest allowed ``p999``
    passes : ``p999`` is within the bound and ``rows_equal``
    """

    median: float
    p999: float
    worst_tile_mean: float
    worst_tile_index: int
    rows_equal: bool
    batch_difference: float
    tiles: int
    bound: float
    passes: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "passes", self.p999 <= self.bound and self.rows_equal)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Parity:
        """A parity from the output of :meth:`to_json`. Raises ModelError for anything else."""
        try:
            values = json.loads(text)
            values.pop("passes")  # follows from the others
            return cls(**values)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ModelError(f"not a parity record ({error}): the engine is unproven; measure it again") from error

    def __str__(self) -> str:
        rows = "equal" if self.rows_equal else f"differ by up to {self.batch_difference:.2g} in a*, b*"
        return (
            f"{'passes' if self.passes else 'FAILS'}: CIEDE2000 median {self.median:.4f}, 99.9th percentile "
            f"{self.p999:.4f} (bound {self.bound:g}), worst tile {self.worst_tile_index} mean "
            f"{self.worst_tile_mean:.4f}; {self.tiles} tiles; rows of a batch and alone {rows}"
        )


def compare(reference: F32, other: F32, lightness: F32, bound: float = BOUNDS["fp32"]) -> Parity:
    """Compare two predictions for the same tiles; ``rows_equal`` is left true.

    Parameters
    ----------
    reference, other : (N, 2, T, U) a*, b*
    lightness : (N, 1, T, U) L* in [0, 100]
    bound : largest 99.9th percentile of CIEDE2000 that passes

    Raises
    ------
    ValueError : shapes that do not match, or no tile.
    ModelError : NaN or infinite values, as from a half-precision engine that overflows.
    """
    count, _, *tile = lightness.shape
    expected = (count, 2, *tile)
    if not count or reference.shape != expected or other.shape != expected:
        raise ValueError(
            f"predictions {reference.shape} and {other.shape} for lightness {lightness.shape}: pixels would be "
            f"compared with other pixels; give both as {expected}, at least one tile"
        )
    for name, chroma in (("reference", reference), ("engine", other)):
        if broken := int(np.count_nonzero(~np.isfinite(chroma))):
            raise ModelError(
                f"{broken} of {chroma.size} values that the {name} predicts are not finite: their pixels have no "
                "colour; use another precision"
            )
    differences = np.empty((count, *tile), np.float32)
    for index in range(count):  # one at a time: the formula holds a dozen float64 planes
        labs = (np.concatenate([lightness[index], c[index]]) for c in (reference, other))
        differences[index] = ciede2000(*labs)
    means = differences.mean(axis=(1, 2), dtype=np.float64)
    median, p999 = np.percentile(differences, (50, 99.9))
    worst = int(means.argmax())
    return Parity(float(median), float(p999), float(means[worst]), worst, True, 0.0, count, bound)


def measure_parity(spec: EngineSpec, tiles: int = COUNT, alone: int = 6) -> Parity:
    """Compare an engine with the reference on ``tiles`` reference tiles; ``alone`` of them are also predicted singly.

    The two engines are opened one after the other, so memory is that of one engine and the predictions: 0.5 MB per tile
    of 256x256 pixels.

    Raises
    ------
    EngineError : either cannot be opened, or predicts values that are not finite. ValueError : ``tiles`` not in 1-48.
    """
    model = model_for(spec.backend, spec.model_folder, spec.network)
    inputs = reference_inputs(model, spec.tile_yx, tiles)
    plain = dataclasses.replace(spec, backend=REFERENCE, precision="fp32", batch=1, threads=1, streams=1)
    with open_engine(plain) as engine:
        reference = predict_in_full_batches(engine, inputs, 1)
    with open_engine(spec) as engine:
        other = predict_in_full_batches(engine, inputs, spec.batch)
        equal, difference = rows_against_alone(engine, inputs, other, alone)
    lightness = inputs[:, :1]
    if spec.network == PALETTE and model.card.palette is not None:
        lightness = _cell_means(reference_tiles(spec.tile_yx, tiles), model.card.palette.cells)
        reference, other = (mean_colours(each, model.card.palette) for each in (reference, other))
    parity = compare(reference, other, lightness, BOUNDS[spec.precision])
    return dataclasses.replace(parity, rows_equal=equal, batch_difference=difference)


def reference_inputs(model: Model, tile_yx: tuple[int, int], count: int = COUNT) -> F32:
    """:func:`reference_tiles` in the input format of ``model``'s network: (count, 1 or 3, T, U)."""
    if model.network == PALETTE:
        return gray_of(reference_tiles(tile_yx, count))
    return reference_tiles(tile_yx, count, model.card.channels)


def _cell_means(lightness: F32, cells: int) -> F32:
    """(N, 1, T, U) to (N, 1, cells, cells) means; cells must be a whole number of pixels."""
    count, _, height, width = lightness.shape
    parts = lightness.reshape(count, 1, cells, height // cells, cells, width // cells)
    means: F32 = parts.mean(axis=(3, 5), dtype=np.float32)
    return means


def predict_in_full_batches(engine: Engine, lightness: F32, batch: int) -> F32:
    """(N, 1 or 3, T, U) to the engine's output for each tile.

    The last batch is padded with the first tiles, not left short.
    """
    count = len(lightness)
    parts = [engine.predict(lightness[np.arange(i, i + batch) % count]) for i in range(0, count, batch)]
    return np.concatenate(parts)[:count]


def rows_against_alone(engine: Engine, lightness: F32, together: F32, alone: int) -> tuple[bool, float]:
    """Whether ``alone`` tiles, predicted one by one, have the bytes of ``together``, and the largest difference.

    The tiles are spread over the set, including its last one, so they come from several rows of a batch.
    """
    equal, largest = True, 0.0
    for index in np.unique(np.linspace(0, len(lightness) - 1, min(alone, len(lightness))).round().astype(int)):
        single, row = engine.predict(lightness[index : index + 1]), together[index : index + 1]
        equal = equal and single.tobytes() == row.tobytes()
        largest = max(largest, float(np.abs(single - row).max()))
    return equal, largest
