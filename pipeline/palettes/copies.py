"""The palette of a coloured copy that was made elsewhere: its chroma, laid on the scan, as means over cells.

The copy is shrunk first, and found on the shrunk scan (:mod:`pipeline.palettes.registration`). Cells may be finer than
a palette network's, because what is in them is known: 64 along the short side, which are hardly better than 48 for
copies that lost something on their way, and no worse for those that were warped (tests.benchmarks.palette_from). The
copy's a*, b* are taken as they are, also where it is lighter or darker than the scan.

What lies outside the copy has the colour of the nearest cell inside, up to a twentieth of the short side, and fades to
gray over another twentieth: a margin that was cut off goes on, a mount that the copy does not show stays gray.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.colour.lab import lab_from_rgb, sample_max
from pipeline.errors import PaletteCopyError
from pipeline.palettes.registration import Registration, register
from pipeline.tiling.anchor import overview, shrinking, square_means
from pipeline.tiling.palette import Palette
from pipeline.types import Roi, ScanReader

F32 = NDArray[np.float32]
Reader = Callable[[Roi], NDArray]

CELLS = 64  # along the short side
_MOST_CELLS = 1024  # along the long side
_LONG_PX = 1024  # of the shrunk copy
_BAND_PIXELS = 2**20
_FINER = 8  # places a cell along each side that the copy is looked up at
_LEAST_INSIDE = 0.25  # of a cell that the copy says something about
_GOES_ON = 0.05  # of the short side
_LEAST_CHROMA = 0.5


def shrunk_copy(reader: ScanReader) -> tuple[F32, int]:
    """The (3, h, w) L*, a*, b* of an open copy, as means over squares, and the side of these squares in its pixels.

    It is read once, from top to bottom, about a megapixel at a time.

    Raises
    ------
    PaletteCopyError : it has no colours. ScanError : it cannot be read.
    """
    if reader.info.channels != 3:
        raise PaletteCopyError(
            "the copy is gray, or its colours are not sRGB's and no profile says whose; give it in colour, as sRGB"
        )
    (height, width), factor = reader.info.shape_yx, 1
    while max(height, width) > _LONG_PX * factor:
        factor *= 2
    rows = max(1, _BAND_PIXELS // (width * factor)) * factor
    bands = []
    for y in range(0, height, rows):
        samples = reader.read(slice(y, min(y + rows, height)), slice(0, width))
        lab = lab_from_rgb(samples.astype(np.float32) / np.float32(sample_max(samples.dtype)))
        bands.append(np.stack([square_means(np.ascontiguousarray(plane), factor) for plane in lab]))
    small: F32 = np.concatenate(bands, axis=1)
    if float(np.hypot(small[1], small[2]).mean()) < _LEAST_CHROMA:
        raise PaletteCopyError("the copy is gray all over, and so would be the result; give it in colour")
    return small, factor


def palette_of_copy(
    read: Reader, shape_yx: tuple[int, int], copy: F32, copy_factor: int, cells: int = CELLS
) -> tuple[Palette, Registration]:
    """The palette that a scan gets from its copy, and where the copy lies on it, in the pixels of both.

    Parameters
    ----------
    read : gives the samples of a region of the scan, as for :func:`pipeline.tiling.anchor.overview`
    shape_yx : of the scan
    copy, copy_factor : as :func:`shrunk_copy` gives them
    cells : along the short side

    Raises
    ------
    PaletteCopyError : it is no copy of the scan
    """
    factor = shrinking(shape_yx)
    found = register(overview(read, shape_yx, factor), copy[0])
    return laid_on(shape_yx, copy, found.scaled(factor, 1), cells), found.scaled(factor, copy_factor)


def laid_on(shape_yx: tuple[int, int], copy: F32, found: Registration, cells: int = CELLS) -> Palette:
    """The palette of a scan from its (3, h, w) copy, which lies where ``found`` says, in the pixels of these two."""
    short = min(shape_yx)
    counts = [max(1, min(_MOST_CELLS, extent, round(cells * extent / short))) for extent in shape_yx]
    (rows, columns), cell_yx = counts, (shape_yx[0] / counts[0], shape_yx[1] / counts[1])
    step_yx = cell_yx[0] / _FINER, cell_yx[1] / _FINER
    matrix = np.array(found.matrix) @ np.diag([step_yx[1], step_yx[0], 1.0])
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV counts from the middle of the first pixel
    size, flags = (columns * _FINER, rows * _FINER), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    known = [
        np.asarray(cv2.warpAffine(plane, matrix, size, flags=flags), np.float32)
        for plane in (np.ones_like(copy[0]), copy[1], copy[2])
    ]
    inside, *chroma = (np.asarray(cv2.resize(plane, (columns, rows), interpolation=cv2.INTER_AREA)) for plane in known)
    means = np.stack(chroma) / np.maximum(inside, 1e-6)
    return Palette(_gone_on(means, inside >= _LEAST_INSIDE, min(rows, columns)), cell_yx)


def _gone_on(means: F32, inside: NDArray[np.bool_], short: int) -> F32:
    """(2, rows, columns) colours, those outside from the nearest cell inside, fading with the distance."""
    if inside.all():
        return means.astype(np.float32)
    outside = (~inside).astype(np.uint8)
    distance, nearest = cv2.distanceTransformWithLabels(
        outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE, labelType=cv2.DIST_LABEL_PIXEL
    )
    label_of = np.zeros(int(nearest.max()) + 1, np.intp)
    label_of[nearest[inside]] = np.flatnonzero(inside)
    flat = means.reshape(2, -1)[:, label_of[nearest]]
    kept = np.clip(2 - distance / max(_GOES_ON * short, 1e-6), 0, 1)
    return np.asarray(flat * kept, np.float32)
