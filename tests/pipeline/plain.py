"""What the tests compare with: whole arrays, float64, no blocks; and pictures and predictions to do it with."""

from __future__ import annotations

import numpy as np

from pipeline.tiling.infer import BlockInput, BlockResult, colorize_block, lightness_roi
from pipeline.tiling.overlap_stats import OverlapStats, squares
from pipeline.tiling.weights import window_weights


def echo(tiles):
    """The identity engine: lightness in both planes."""
    return np.repeat(tiles, 2, axis=1)


def position_dependent(tiles):
    """A prediction that differs at every pixel of a tile and between tiles, like a network's."""
    height, width = tiles.shape[2:]
    ramp = np.add.outer(np.arange(height, dtype=np.float32), 3 * np.arange(width, dtype=np.float32))
    return np.concatenate([tiles + ramp, tiles.mean(axis=(2, 3), keepdims=True) - ramp], axis=1)


def opinionated(tiles):
    """Chroma in the range of real ones whose colour differs from tile to tile, as where a network guesses."""
    opinions = 40 * np.sin(tiles[:, :, :1, :1] * [[[[1]], [[3]]]])
    return (opinions + 0.3 * echo(tiles) - 15).astype(np.float32)


def picture(shape_yx, seed=0):
    values = np.random.default_rng(seed).integers(0, 200, shape_yx) / 2
    return values.astype(np.float32)


def tiles_of(grid):
    return [(y, x) for y in grid.y.starts for x in grid.x.starts]


def run_blocks(grid, window, image, predict, block_px, batch=3, anchor=None):
    result = np.full((2, *grid.shape_yx), np.nan, np.float32)
    for block in grid.blocks(block_px):
        seen = lightness_roi(grid, block)
        work = BlockInput(grid, block, window, image[seen.rows, seen.columns], anchor=anchor)
        result[:, block.write_roi.rows, block.write_roi.columns] = colorize_block(work, predict, batch)
    return result


def plain_predictions(grid, tiles, image, predict):
    """(first pixel, prediction) of each of ``tiles``, cut from the whole picture reflected out."""
    covered_extent = [max(start[axis] for start in tiles) + size for axis, size in enumerate(grid.tile_yx)]
    missing = [(0, max(0, r - s)) for r, s in zip(covered_extent, image.shape, strict=True)]
    padded = np.pad(image, missing, mode="symmetric")
    (height, width) = grid.tile_yx
    return [((y, x), predict(padded[y : y + height, x : x + width][None, None])[0]) for y, x in tiles]


def plain_weighted_mean(grid, window, predictions):
    """Predictions over the whole picture, float64 sums divided by float64 weights."""
    height, width = grid.tile_yx
    covered_extent = [max(start[axis] for start, _ in predictions) + size for axis, size in enumerate(grid.tile_yx)]
    total, weight = np.zeros((2, *covered_extent)), np.zeros(covered_extent)
    tile_weight = np.outer(window_weights(window, height), window_weights(window, width)).astype(float)
    for (y, x), chroma in predictions:
        where = (slice(y, y + height), slice(x, x + width))
        total[:, *where] += chroma * tile_weight
        weight[where] += tile_weight
    return (total / weight)[:, : grid.y.extent, : grid.x.extent]


def plain_overlap_average(grid, window, image, predict):
    """All tiles of the grid, as the reports describe it."""
    return plain_weighted_mean(grid, window, plain_predictions(grid, tiles_of(grid), image, predict))


def plain_agreement(grid, window, predictions):
    """Mean, spread and weight of what the predictions say of squares of 32 px; two passes, float64.

    A prediction counts where it covers all of a square, by the mean of its weights there.
    """
    weights = [window_weights(window, size).astype(float) for size in grid.tile_yx]
    opinions = {}
    for start, chroma in predictions:
        for square in np.ndindex(*(squares(extent) for extent in grid.shape_yx)):
            inside = [slice(32 * n - first, 32 * n - first + 32) for n, first in zip(square, start, strict=True)]
            if all(s.start >= 0 and s.stop <= size for s, size in zip(inside, grid.tile_yx, strict=True)):
                weight = np.outer(*(w[s] for w, s in zip(weights, inside, strict=True))).mean()
                opinions.setdefault(square, []).append((weight, chroma[:, *inside].mean((1, 2), dtype=float)))
    mean, spread, weight = (np.zeros((n, *(squares(e) for e in grid.shape_yx))) for n in (2, 1, 1))
    for square, said in opinions.items():
        each, colours = np.array([w for w, _ in said]), np.array([c for _, c in said])
        mean[:, *square] = np.average(colours, axis=0, weights=each)
        away = ((colours - mean[:, *square]) ** 2).sum(1)
        spread[0, *square] = np.sqrt(np.average(away, weights=each))
        weight[0, *square] = each.sum()
    return OverlapStats(mean, spread[0], weight[0])


def assert_agreements_are_close(one, expected):
    """Variances are compared: that of tiles that agree is the rounding of two large sums of float32."""
    np.testing.assert_allclose(one.weight, expected.weight, rtol=1e-4)
    there = expected.weight > 0
    np.testing.assert_allclose(one.mean[:, there], expected.mean[:, there], atol=2e-3)
    np.testing.assert_allclose(one.spread[there] ** 2, expected.spread[there] ** 2, rtol=1e-3, atol=0.02)


def coloured(chroma, spread=0.0):
    """(2, H, W) chroma whose tiles agreed but for ``spread``: what a block's write is given."""
    shape = tuple(squares(extent) for extent in chroma.shape[1:])
    planes = np.zeros((2, *shape), np.float32), np.full(shape, spread, np.float32), np.ones(shape, np.float32)
    return BlockResult(np.asarray(chroma, np.float32), OverlapStats(*planes))
