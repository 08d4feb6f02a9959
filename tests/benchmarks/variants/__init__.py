"""Small files of every kind that the readers take, for the differential test: each module makes those of a few formats.

A module offers ``variants()``; its files are found by name, so that a new module is a new set of variants.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHAPE = 29, 37
LOSSLESS, LOSSY, BY_PROFILE = 0.6, 2.0, 2.0
"""L*: a step of 8 bits, in which some programs have palettes and ink; decoders round and enlarge chroma in their own
ways; ImageCms answers in 8 bits and of another adaptation to D65."""


@dataclass(frozen=True)
class Variant:
    """A file.

    Attributes
    ----------
    family : of the table's rows
    name : of the variant within it
    make : its bytes, or what writes it to a path
    ending : of its name, by which some readers choose
    near : largest difference in L* that counts as the same
    kinds : what is special about it; explanations of disagreements go by these
    written : (h, w) or (h, w, 3) samples that were written, from 0 (black) to 1 (white), where nothing is lost
    """

    family: str
    name: str
    make: bytes | Callable[[Path], None]
    ending: str
    near: float = LOSSLESS
    kinds: frozenset[str] = frozenset()
    written: NDArray[np.floating] | None = None

    def put(self, folder: Path) -> Path:
        path = folder / f"scan{self.ending}"
        if isinstance(self.make, bytes):
            path.write_bytes(self.make)
        else:
            self.make(path)
        return path


def kinds(*names: str) -> frozenset[str]:
    return frozenset(name for name in names if name)


def gray(dtype: str = "uint8", shape: tuple[int, int] = SHAPE, top: int | None = None) -> NDArray:
    """Smooth, so that it outlives lossy compression, and unlike itself turned or mirrored."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / np.maximum(1, [[[shape[0] - 1]], [[shape[1] - 1]]])
    unit = 0.06 + 0.5 * x + 0.3 * y * y + 0.1 * np.sin(5 * x + 2 * y)
    return np.asarray(np.rint(unit * (np.iinfo(dtype).max if top is None else top)), dtype)


def colour(dtype: str = "uint8", shape: tuple[int, int] = SHAPE, top: int | None = None) -> NDArray:
    """(h, w, 3), of which any exchange of channels changes how light it is."""
    one = gray(dtype, shape, top).astype(float)
    full = np.iinfo(dtype).max if top is None else top
    return np.asarray(np.rint(np.stack([0.9 * one, 0.5 * one + 0.2 * full, 0.8 * full - 0.7 * one], axis=2)), dtype)


def unit(samples: NDArray, top: int | None = None) -> NDArray[np.floating]:
    return np.asarray(samples / (np.iinfo(samples.dtype).max if top is None else top))


def all_variants() -> Iterator[Variant]:
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda found: found.name):
        if not found.name.startswith("_"):
            yield from importlib.import_module(f"{__name__}.{found.name}").variants()
