"""The spread of the tiles' opinions against a plain weighted standard deviation, tile by tile and square by square."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tiling.anchor import Anchor
from pipeline.tiling.grid import TileAxis, TileGrid
from pipeline.tiling.infer import BlockInput, colorize_blocks, lightness_roi
from pipeline.tiling.overlap_stats import OverlapAccumulator, OverlapStats, squares
from pipeline.types import Roi
from tests.pipeline.plain import (
    assert_agreements_are_close,
    echo,
    opinionated,
    picture,
    plain_agreement,
    plain_predictions,
    tiles_of,
)
from tests.strategies import examples, windows


@st.composite
def grids(draw):
    """Tiles that hold a square of 32 px or more, or less; flush or aligned; larger or smaller than the scan."""
    align = draw(st.sampled_from([1, 5, 16, 32]))
    size = draw(st.integers(20, 110))
    stride = max(size // draw(st.integers(1, 3)) // align * align, min(size, align))
    shape_yx = draw(st.tuples(st.integers(1, 200), st.integers(1, 200)))
    return TileGrid.of(shape_yx, (size, size), (stride, stride), align)


def agreement_of(grid, window, image, predict, block_px, anchor=None):
    """Of the whole picture, put together from blocks."""
    shape = tuple(squares(extent) for extent in grid.shape_yx)
    planes = np.full((4, *shape), np.nan, np.float32)
    for block in grid.blocks(block_px):
        seen, roi = lightness_roi(grid, block), block.write_roi
        work = BlockInput(grid, block, window, image[seen.rows, seen.columns], anchor=anchor)
        (made,) = colorize_blocks([work], grid.tile_yx, predict, 3)
        rows = slice(roi.y0 // 32, roi.y0 // 32 + squares(roi.shape_yx[0]))
        columns = slice(roi.x0 // 32, roi.x0 // 32 + squares(roi.shape_yx[1]))
        planes[:2, rows, columns] = made.agreement.mean
        planes[2, rows, columns], planes[3, rows, columns] = made.agreement.spread, made.agreement.weight
    return OverlapStats(planes[:2], planes[2], planes[3])


def plainly(grid, window, image, predict):
    return plain_agreement(grid, window, plain_predictions(grid, tiles_of(grid), image, predict))


@examples(40)
@given(grids(), windows, st.sampled_from([32, 64, 96, 256]))
def test_equals_the_plain_weighted_deviation_however_it_is_divided(grid, window, block_px):
    image = picture(grid.shape_yx)
    found = agreement_of(grid, window, image, opinionated, block_px)
    assert_agreements_are_close(found, plainly(grid, window, image, opinionated))


@examples(25)
@given(grids(), windows, st.integers(0, 2**32 - 1))
def test_opinions_that_are_known_count_as_if_they_were_given_one_by_one(grid, window, seed):
    """Tiles in any two lots: what the first came to, and then the second."""
    random = np.random.default_rng(seed)
    predictions = plain_predictions(grid, tiles_of(grid), picture(grid.shape_yx), opinionated)
    roi = Roi(0, grid.y.extent, 0, grid.x.extent)
    first, second = OverlapAccumulator(grid, roi, window), OverlapAccumulator(grid, roi, window)
    for tile, chroma in predictions:
        (first if random.random() < 0.5 else second).add(tile, chroma)
    second.add_known(first.result())
    assert_agreements_are_close(second.result(), plain_agreement(grid, window, predictions))


@pytest.mark.parametrize("window", ["average", "hann"])
def test_tiles_that_agree_have_no_spread(window):
    grid = TileGrid.of((200, 230), (64, 64), (16, 16), 16)
    found = agreement_of(grid, window, picture(grid.shape_yx), echo, 96)
    assert (found.weight[:6, :7] > 0).all()
    assert found.spread.max() < 0.05  # a tenth of what the report shows


def test_two_opinions_far_apart_are_half_that_far_from_their_mean():
    """By hand: a* of -30 and +30 with equal weights in the strip that both tiles cover, and one opinion beside it."""
    grid = TileGrid(TileAxis(64, 64, 64), TileAxis(128, 96, 32))
    opinions = OverlapAccumulator(grid, Roi(0, 64, 0, 128), "average")
    for tile, a in zip(tiles_of(grid), (-30, 30), strict=True):
        opinions.add(tile, np.stack([np.full((64, 96), a), np.full((64, 96), 7)]).astype(np.float32))
    found = opinions.result()
    np.testing.assert_allclose(found.spread, [[0, 30, 30, 0]] * 2, atol=1e-2)
    np.testing.assert_allclose(found.mean[0], [[-30, 0, 0, 30]] * 2, atol=1e-4)
    np.testing.assert_allclose(found.mean[1], 7, atol=1e-4)
    np.testing.assert_array_equal(found.weight, [[1, 2, 2, 1]] * 2)


def test_grain_is_no_disagreement():
    """Two tiles that differ in every pixel but not in the mean of any square."""
    grid = TileGrid(TileAxis(64, 64, 64), TileAxis(96, 64, 32))
    opinions = OverlapAccumulator(grid, Roi(0, 64, 0, 96), "hann")
    checks = np.indices((64, 64)).sum(0) % 2 * 60.0 - 30
    for tile, sign in zip(tiles_of(grid), (1, -1), strict=True):
        opinions.add(tile, np.stack([sign * checks, sign * checks]).astype(np.float32))
    assert opinions.result().spread.max() < 1e-2


def test_opinions_are_those_from_before_the_anchor():
    grid = TileGrid.of((150, 170), (64, 64), (32, 32), 32)
    image = picture(grid.shape_yx)
    palette = Anchor(np.random.default_rng(2).normal(0, 30, (2, 10, 11)).astype(np.float32), 16)
    alone = agreement_of(grid, "hann", image, opinionated, 64)
    together = agreement_of(grid, "hann", image, opinionated, 64, palette)
    assert alone.spread.max() > 10
    assert alone.spread.tobytes() == together.spread.tobytes()
