"""Blending against the plain way: whole-image sums and counts, as the reports describe it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CoverageError, PredictionError, UsageError
from pipeline.tiling.grid import TileAxis, TileGrid
from pipeline.tiling.infer import BlockInput, ReusedTiles, colorize_block, colorize_blocks, lightness_roi, reflected_out
from pipeline.tiling.weights import WINDOWS, window_weights
from tests.pipeline.plain import echo, picture, plain_overlap_average, position_dependent, run_blocks
from tests.strategies import examples, grids, windows


@examples(150)
@given(grids(), windows, st.integers(3, 64), st.integers(1, 9))
def test_identity_comes_back_exactly(grid, window, block_px, batch):
    image = picture(grid.shape_yx)
    blended = run_blocks(grid, window, image, echo, block_px, batch)
    # What the store keeps: these lightness values are float16 numbers, so nothing may change.
    np.testing.assert_array_equal(blended.astype(np.float16), np.stack([image, image]).astype(np.float16))


@examples(100)
@given(grids(), windows, st.integers(3, 64))
def test_equals_the_plain_overlap_average(grid, window, block_px):
    image = picture(grid.shape_yx)
    expected = plain_overlap_average(grid, window, image, position_dependent)
    blended = run_blocks(grid, window, image, position_dependent, block_px)
    np.testing.assert_allclose(blended, expected, rtol=2e-5, atol=1e-3)


@examples(50)
@given(grids(), windows, st.integers(3, 64), st.integers(3, 64))
def test_bytes_do_not_depend_on_the_block_division(grid, window, block_px, other_px):
    image = picture(grid.shape_yx)
    one = run_blocks(grid, window, image, position_dependent, block_px)
    other = run_blocks(grid, window, image, position_dependent, other_px)
    assert one.tobytes() == other.tobytes()


@st.composite
def aligned_grids(draw):
    """Tiles that start at multiples of ``align`` even at the far edges, which they then reach past."""
    align = draw(st.integers(2, 12))
    size = align * draw(st.integers(2, 4))
    stride = align * draw(st.integers(1, size // align))
    shape_yx = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    return TileGrid.of(shape_yx, (size, size), (stride, stride), align)


@examples(40)
@given(aligned_grids(), windows, st.integers(6, 64), st.integers(6, 64))
def test_aligned_tiles_are_blended_plainly_and_whatever_the_blocks(grid, window, block_px, other_px):
    image = picture(grid.shape_yx)
    one = run_blocks(grid, window, image, position_dependent, block_px)
    other = run_blocks(grid, window, image, position_dependent, other_px)
    assert one.tobytes() == other.tobytes()
    expected = plain_overlap_average(grid, window, image, position_dependent)
    np.testing.assert_allclose(one, expected, rtol=2e-5, atol=1e-3)


def test_tiles_of_one_align_are_the_same_whatever_the_blocks():
    grid = TileGrid.of((70, 70), (32, 32), (32, 32), 32)
    image = picture(grid.shape_yx)
    one = run_blocks(grid, "hann", image, position_dependent, 128)
    assert one.tobytes() == run_blocks(grid, "hann", image, position_dependent, 64).tobytes()


def test_known_tiles_count_where_only_the_coarse_grid_can_be_aligned():
    """What reprocess --stride 16 takes over from stride 32 of a network that wants multiples of 32."""
    coarse = TileGrid.of((100, 100), (64, 64), (32, 32), 32)
    fine = TileGrid.of((100, 100), (64, 64), (16, 16), 32)
    image = picture((100, 100))
    known = ReusedTiles(coarse, run_blocks(coarse, "hann", image, echo, 128))
    (block,) = fine.blocks(128)
    again = colorize_block(BlockInput(fine, block, "hann", image, known), echo, 4)
    np.testing.assert_allclose(again, np.stack([image, image]), atol=1e-3)


def test_more_than_255_visits_do_not_overflow():
    grid = TileGrid.of((64, 64), (64, 64), (2, 2))
    wide = TileGrid(TileAxis(96, 64, 2), TileAxis(96, 64, 2))
    image = picture((96, 96))
    assert len(grid) == 1
    np.testing.assert_array_equal(run_blocks(wide, "average", image, echo, 96)[0], image)


@pytest.mark.parametrize("name", sorted(WINDOWS))
@pytest.mark.parametrize("size", [1, 2, 7, 256, 2048])
def test_windows_are_positive_symmetric_and_highest_inside(name, size):
    weights = window_weights(name, size)
    assert weights.dtype == np.float32
    assert weights.shape == (size,)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-4)
    assert weights.argmax() in range((size - 1) // 2 if name != "average" else 0, size // 2 + 1)


def test_an_unknown_window_names_the_known():
    with pytest.raises(UsageError, match=r"'boxcar'.*average, hann"):
        window_weights("boxcar", 8)


def test_uncovered_pixels_raise(monkeypatch):
    monkeypatch.setitem(WINDOWS, "hann", lambda size: np.zeros(size, np.float32))
    grid = TileGrid.of((32, 32), (16, 16), (8, 8))
    with pytest.raises(CoverageError, match="covered by no tile"):
        run_blocks(grid, "hann", picture((32, 32)), echo, 32)


def test_predictions_that_are_not_numbers_are_refused():
    grid = TileGrid.of((32, 32), (16, 16), (8, 8))
    with pytest.raises(PredictionError, match=r"not numbers.*--engine"):
        run_blocks(grid, "hann", picture((32, 32)), lambda tiles: echo(tiles) * np.nan, 32)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 2), (10, 31)])
def test_small_scans_are_reflected_out(shape):
    image = picture(shape)
    grown = reflected_out(image, (32, 32))
    assert grown.shape == (32, 32)
    np.testing.assert_array_equal(grown[: shape[0], : shape[1]], image)
    if shape == (10, 31):
        np.testing.assert_array_equal(grown[10:20, :31], image[::-1])


@examples(50)
@given(st.lists(grids(), min_size=1, max_size=5), windows, st.integers(1, 7), st.integers(3, 64))
def test_batches_that_run_through_many_scans_give_each_its_own_bytes(grids_of_scans, window, batch, block_px):
    """Postcards share batches; each must come out as it does alone, in order, and never with more than a batch."""
    tile_yx = grids_of_scans[0].tile_yx
    works = []
    for seed, grid in enumerate(grids_of_scans):
        grid = TileGrid.of(grid.shape_yx, tile_yx, (grids_of_scans[0].y.stride, grids_of_scans[0].x.stride))
        image = picture(grid.shape_yx, seed)
        for block in grid.blocks(block_px):
            seen = lightness_roi(grid, block)
            works.append(BlockInput(grid, block, window, image[seen.rows, seen.columns]))
    sizes = []

    def predict(tiles):
        sizes.append(len(tiles))
        return position_dependent(tiles)

    together = list(colorize_blocks(works, tile_yx, predict, batch))
    assert all(size == batch for size in sizes[:-1])
    assert sum(sizes) == sum(len(work.block.tile_origins) for work in works)
    for work, made in zip(works, together, strict=True):
        assert made.chroma.tobytes() == colorize_block(work, position_dependent, 3).tobytes()


@examples(80)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 12), st.integers(1, 3), windows, st.integers(3, 64))
def test_known_tiles_of_twice_the_stride_are_not_predicted_again(height, width, stride, span, window, block_px):
    """A quarter of the tiles is known; adding the rest to their mean gives the plain average."""
    size = 2 * stride * span
    coarse = TileGrid.of((height, width), (size, size), (2 * stride, 2 * stride))
    fine = TileGrid.of((height, width), (size, size), (stride, stride))
    image = picture((height, width))
    known = run_blocks(coarse, window, image, position_dependent, block_px)
    plain = run_blocks(fine, window, image, position_dependent, block_px)
    predicted = 0

    def predict(tiles):
        nonlocal predicted
        predicted += len(tiles)
        return position_dependent(tiles)

    for block in fine.blocks(128):
        seen, roi = lightness_roi(fine, block), block.write_roi
        of_coarse = ReusedTiles(coarse, known[:, roi.rows, roi.columns])
        work = BlockInput(fine, block, window, image[seen.rows, seen.columns], of_coarse)
        again = colorize_block(work, predict, 4)
        np.testing.assert_allclose(again, plain[:, roi.rows, roi.columns], rtol=2e-5, atol=2e-3)
    assert predicted == len(fine) - len(coarse)
