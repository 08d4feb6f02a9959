"""Visible traces of the tiles in a coloured version, as figures, and the places where finer tiles would help."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.quality.figures import Quality
from pipeline.quality.seams import SeamScore, seam_score
from pipeline.store import ChromaVersion, GradedVersion, ScanStore
from pipeline.tiling.grid import TileGrid
from pipeline.tiling.overlap_stats import SQUARE_PX
from pipeline.types import Roi

F32 = NDArray[np.float32]

# The finest stride for a quality is the tile divided by this, as system 5's 32 px of 256.
FINEST = 8
MAP_TOP = 20.0  # spread, in CIELAB units, of the brightest colour of the map
_MAP_SIDE_PX = 1024
# Refining a place halves its tiles' weight twice: its contribution to the score falls to about a third.
_HELP = 1.2
_LEAST_SHARE = 0.05
_LEAST_GAIN = 0.9
# A grade adds no seams, so that a part of a large scan tells; all of it would take half as long as its export.
_GRADED_PX = 2**24


def levels_of(grid: TileGrid) -> int:
    """Number of grids from ``grid`` on, each of half the stride, down to an eighth of the tile."""
    levels = 1
    while all(a.stride % 2 == 0 and a.stride // 2 * FINEST >= a.size for a in (grid.y, grid.x)):
        grid, levels = grid.refined(), levels + 1
    return levels


def refined(grid: TileGrid, level: int) -> TileGrid:
    """``grid`` with its stride halved ``level`` times."""
    for _ in range(level):
        grid = grid.refined()
    return grid


def measure(store: ScanStore, version: ChromaVersion, grid: TileGrid, wanted: float = 0.0) -> Quality:
    """Score a complete version against its grid and, if it was refined, against the finer ones; the worst counts.

    ``wanted`` is the requested score, which is recorded with the result.
    """
    shape_yx = store.info.shape_yx

    def read(roi: Roi) -> tuple[F32, F32]:
        lightness = store.read_lightness(roi)
        return lightness, version.window(roi)(slice(None), lightness, store.uncoloured(roi))

    grids = [refined(grid, level) for level in range(version.levels_chosen + 1)]
    strides = tuple((each.y.stride, each.x.stride) for each in grids)
    most_px = _GRADED_PX if isinstance(version, GradedVersion) else None
    scores = [seam_score(read, shape_yx, stride, most_px) for stride in strides] if len(grid) > 1 else []
    worst = max(scores, key=lambda score: np.nan_to_num(score.score), default=SeamScore(np.nan, np.nan))
    spread, weight = version.spread(Roi(0, shape_yx[0], 0, shape_yx[1]))
    spread = spread[weight > 0] * version.scale_factor
    mean, p95 = (float(spread.mean()), float(np.percentile(spread, 95))) if spread.size else (0.0, 0.0)
    return Quality(
        seam=_figure(worst.score),
        seam_edge=_figure(worst.edge),
        seam_patch=_figure(worst.patch),
        disagreement_mean=round(mean, 3),
        disagreement_p95=round(p95, 3),
        strides_px=strides,
        tiles=len(grid) + sum(int(version.chosen(level).sum()) for level in range(1, version.levels_chosen + 1)),
        wanted=wanted,
        doubt=version.doubt,
    )


def _figure(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def has_helped(before: float, after: float) -> bool:
    """True if a refinement removed a tenth of the score's excess above 1; if not, finer tiles only chase noise."""
    return after - 1 < _LEAST_GAIN * (before - 1)


def tiles_to_add(
    spread: F32, grid: TileGrid, earlier: Sequence[NDArray[np.bool_]], score: float, wanted: float
) -> NDArray[np.bool_]:
    """The tiles of the next finer grid to predict, so that the score comes down to the wanted one.

    These are the tiles at places with most disagreement: as many as hold a share of the total disagreement that grows
    with the distance to the goal. Nothing here depends on workers or blocks.

    Parameters
    ----------
    spread : (h, w) spread of the squares of the whole scan
    grid : the coarsest grid
    earlier : for each refinement so far, the chosen tiles of its grid

    Returns
    -------
    (rows, columns) bool, one for each tile of the finer grid
    """
    fine = refined(grid, len(earlier) + 1)
    there = np.zeros((len(fine.y.starts), len(fine.x.starts)), bool)
    for level, chosen in enumerate([None, *earlier]):
        coarse = refined(grid, level)
        rows, columns = (np.isin(f.starts, c.starts) for f, c in ((fine.y, coarse.y), (fine.x, coarse.x)))
        there[np.ix_(rows, columns)] |= True if chosen is None else chosen
    worth = np.where(there, -1.0, _mean_over_tiles(spread, fine))
    order = np.argsort(-worth, axis=None, kind="stable")[: int((~there).sum())]
    share = min(1.0, max(_LEAST_SHARE, _HELP * (1 - max(0.0, wanted - 1) / max(score - 1, 1e-6))))
    held = np.cumsum(worth.ravel()[order], dtype=np.float64)
    added = np.zeros(worth.size, bool)
    if held.size and held[-1] > 0:
        added[order[: int(np.searchsorted(held, share * held[-1])) + 1]] = True
    return added.reshape(worth.shape)


def _mean_over_tiles(spread: F32, grid: TileGrid) -> NDArray[np.float64]:
    """Mean of the squares in the middle half of each tile."""
    sums = np.pad(np.cumsum(np.cumsum(spread, 0, dtype=np.float64), 1), ((1, 0), (1, 0)))
    bounds = []
    for axis, count in zip((grid.y, grid.x), spread.shape, strict=True):
        starts = np.array(axis.starts)
        first = np.clip((starts + axis.size // 4) // SQUARE_PX, 0, count - 1)
        last = np.clip((starts + axis.size - axis.size // 4) // SQUARE_PX, first + 1, count)
        bounds.append((first, last))
    (top, bottom), (left, right) = bounds
    total = (
        sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)] - sums[np.ix_(bottom, left)] + sums[np.ix_(top, left)]
    )
    return np.asarray(total / np.outer(bottom - top, right - left))


def disagreement_map(store: ScanStore, version: ChromaVersion) -> NDArray[np.uint8]:
    """(h, w, 3) RGB: dark where the tiles agree, bright yellow from a spread of 20 CIELAB units on; 1024 px at most.

    For a model that estimates its doubt, that is drawn instead: bright where the expected CIEDE2000 is 20 or more.
    """
    height, width = store.info.shape_yx
    if version.doubt is not None:
        return _doubt_map(version.doubt_cells(), height, width)
    spread = version.spread(Roi(0, height, 0, width))[0] * version.scale_factor
    scale = min(8.0, _MAP_SIDE_PX / max(spread.shape))
    size = (max(1, round(spread.shape[1] * scale)), max(1, round(spread.shape[0] * scale)))
    shown = cv2.resize(spread, size, interpolation=cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA)
    # The last squares reach beyond the scan: crop the map so that it fits when laid over the scan.
    shown = shown[: max(1, round(height / SQUARE_PX * scale)), : max(1, round(width / SQUARE_PX * scale))]
    return _inferno(shown)


def _doubt_map(expected: F32, height: int, width: int) -> NDArray[np.uint8]:
    scale = _MAP_SIDE_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return _inferno(cv2.resize(expected, size, interpolation=cv2.INTER_LINEAR))


def _inferno(values: F32) -> NDArray[np.uint8]:
    samples = np.clip(values / MAP_TOP * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(samples, cv2.COLORMAP_INFERNO)[..., ::-1])
