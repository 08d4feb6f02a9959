"""Pictures as NumPy files: ``gray_scale.npy`` (N, H, W) and ``ab*.npy`` (N_i, H, W, 2), all uint8, OpenCV's 8-bit Lab.

That is L* x 255 / 100, a* + 128, b* + 128. The files lie side by side or in ``l/`` and ``ab/``; the chroma files are
ordered by their numbers. All are mapped into memory: 25,000 samples of 224 x 224 pixels are 3.8 GB.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.decode import SMALLEST_PX, U8, is_chromatic
from training.errors import DataError

_LIGHTNESS = "gray_scale.npy"
_CHROMA = re.compile(r"ab(\d*)\.npy")
_CHECK_STEP = 8  # every eighth row and column suffices to tell whether a sample is gray


@functools.lru_cache(maxsize=64)
def _mapped(path: Path) -> NDArray:
    """A file's array, opened once per process: pickling a mapping to a worker would copy all of it."""
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a whole NumPy file ({str(error).splitlines()[0]}); fetch it again") from error


@dataclass(frozen=True)
class LabArrays:
    """A lightness file and its chroma files; ``starts`` has the first sample of each chroma file, and the total."""

    lightness: Path
    chroma: tuple[Path, ...]
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, index: int) -> U8:
        """Sample ``index`` as (H, W, 3) 8-bit Lab."""
        part = bisect_right(self.starts, index) - 1
        chroma = _mapped(self.chroma[part])[index - self.starts[part]]
        return np.dstack([_mapped(self.lightness)[index], chroma])

    def inspect(self, index: int) -> tuple[str, str | None]:
        """SHA-256 of a sample's bytes, and the reason not to train on it, or None."""
        lab = self.read(index)
        chroma_ab = lab[::_CHECK_STEP, ::_CHECK_STEP, 1:].transpose(2, 0, 1).astype(np.float32) - np.float32(128)
        reason = None if is_chromatic(chroma_ab) else "gray"
        if min(lab.shape[:2]) < SMALLEST_PX:
            reason = f"smaller than {SMALLEST_PX} px"
        return hashlib.sha256(lab.tobytes()).hexdigest(), reason


def find_arrays(folder: Path, files: Iterable[Path]) -> LabArrays | None:
    """The NumPy layout among ``files``, or None if there is none.

    Raises
    ------
    DataError : the layout is incomplete or there are two, a file is damaged, or files do not belong together.
    """
    found = [path for path in files if path.name == _LIGHTNESS or _CHROMA.fullmatch(path.name)]
    lightness = [path for path in found if path.name == _LIGHTNESS]
    chroma = sorted((path for path in found if path.name != _LIGHTNESS), key=_number)
    if not found:
        return None
    if len(lightness) != 1 or not chroma:
        raise DataError(
            f"{folder}: {len(lightness)} {_LIGHTNESS} and {len(chroma)} ab*.npy; give a folder with one {_LIGHTNESS} "
            "and all its ab*.npy"
        )
    gray, parts = _mapped(lightness[0]), [_mapped(path) for path in chroma]
    for path, array, shape in (
        (lightness[0], gray, ("N", "H", "W")),
        *((path, part, ("N", *gray.shape[1:], 2)) for path, part in zip(chroma, parts, strict=True)),
    ):
        if array.dtype != np.uint8 or array.ndim != len(shape) or (array.ndim == 4 and array.shape[1:] != shape[1:]):
            wanted = ", ".join(map(str, shape))
            raise DataError(f"{path}: {array.dtype} {array.shape}, not uint8 ({wanted}); give 8-bit Lab of one size")
    counts = [len(part) for part in parts]
    if len(gray) != sum(counts):
        listed = " + ".join(map(str, counts))
        raise DataError(
            f"{lightness[0]}: {len(gray)} samples, but {len(chroma)} ab*.npy have {listed} = {sum(counts)}, so colours "
            "would go to the wrong pictures; give all parts of one set"
        )
    return LabArrays(lightness[0], tuple(chroma), tuple(itertools.accumulate(counts, initial=0)))


def _number(path: Path) -> tuple[int, str]:
    match = _CHROMA.fullmatch(path.name)
    return int(match[1]) if match and match[1] else 0, str(path)
