"""Level by level: finer tiles added here and there, against the plain mean of exactly the tiles that are there."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.quality.score import refined
from pipeline.tiling.anchor import Anchor
from pipeline.tiling.grid import TileGrid
from pipeline.tiling.infer import BlockInput, ReusedTiles, colorize_blocks, lightness_roi
from pipeline.tiling.overlap_stats import OverlapStats, squares
from tests.pipeline.plain import (
    assert_agreements_are_close,
    opinionated,
    picture,
    plain_agreement,
    plain_predictions,
    plain_weighted_mean,
    tiles_of,
)
from tests.strategies import examples, windows


class Coarse:
    """A picture made block by block, and then level by level; it counts the tiles that are predicted."""

    def __init__(self, grid, window, image, block_px, anchor=None, batch=4):
        self.grid, self.window, self.image, self.block_px = grid, window, image, block_px
        self.anchor, self.batch = anchor, batch
        self.chroma = np.full((2, *grid.shape_yx), np.nan, np.float32)
        shape = tuple(squares(extent) for extent in grid.shape_yx)
        self.agreement = OverlapStats(np.zeros((2, *shape), np.float32), *np.zeros((2, *shape), np.float32))
        self.predicted = 0
        self._added = []
        self._run(grid, lambda block: {})

    def add(self, tiles):
        """Of the next finer grid."""
        level = len(self._added) + 1
        earlier = list(self._added)

        def of_block(block):
            roi = block.write_roi
            extra = tuple(
                tile
                for below, added in enumerate(earlier, 1)
                for tile in self._block(below, block).tile_origins
                if tile in added
            )
            known = ReusedTiles(self.grid, self.chroma[:, roi.rows, roi.columns].copy(), self._agreement(roi), extra)
            return {"reused": known, "chosen": tuple(tile for tile in block.tile_origins if tile in tiles)}

        self._run(refined(self.grid, level), of_block)
        self._added.append(set(tiles))

    def _block(self, level, block):
        return refined(self.grid, level).block(block.index_yx, self.block_px)

    def _there(self, roi):
        counts = [squares(extent) for extent in roi.shape_yx]
        return tuple(slice(begin // 32, begin // 32 + n) for begin, n in zip((roi.y0, roi.x0), counts, strict=True))

    def _agreement(self, roi):
        there = self._there(roi)
        whole = self.agreement
        return OverlapStats(whole.mean[:, *there].copy(), whole.spread[there].copy(), whole.weight[there].copy())

    def _run(self, grid, more):
        blocks = list(grid.blocks(self.block_px))
        works = []
        for block in blocks:
            seen = lightness_roi(grid, block)
            lightness = self.image[seen.rows, seen.columns]
            works.append(BlockInput(grid, block, self.window, lightness, anchor=self.anchor, **more(block)))

        def count(tiles):
            self.predicted += tiles

        made = colorize_blocks(works, grid.tile_yx, opinionated, self.batch, count)
        for block, done in zip(blocks, list(made), strict=True):
            roi = block.write_roi
            self.chroma[:, roi.rows, roi.columns] = done.chroma
            there = self._there(roi)
            self.agreement.mean[:, *there] = done.agreement.mean
            self.agreement.spread[there] = done.agreement.spread
            self.agreement.weight[there] = done.agreement.weight


def random_choices(grid, levels, seed):
    """For each level some tiles of its grid that are in none of the coarser ones; perhaps none, perhaps all."""
    random = np.random.default_rng(seed)
    there, choices = set(tiles_of(grid)), []
    for level in range(1, levels + 1):
        missing = [tile for tile in tiles_of(refined(grid, level)) if tile not in there]
        share = random.choice([0, 0.1, 0.5, 1])
        choices.append({tile for tile in missing if random.random() < share})
        there |= choices[-1]
    return choices


grids_to_refine = st.builds(
    lambda height, width, align: TileGrid.of((height, width), (64, 64), (64, 64), align),
    st.integers(1, 170) | st.integers(100, 170),
    st.integers(1, 170) | st.integers(100, 170),
    st.sampled_from([1, 4, 16]),
)


TWO_LEVELS = 4  # a seed whose choices of both levels are some, but not all


@examples(60)
@example(TileGrid.of((150, 140), (64, 64), (64, 64), 16), "hann", 2, 64, TWO_LEVELS)
@given(grids_to_refine, windows, st.integers(0, 2), st.sampled_from([64, 96, 160]), st.integers(0, 2**32 - 1))
def test_levels_of_chosen_tiles_are_the_plain_mean_of_exactly_these(grid, window, levels, block_px, seed):
    image = picture(grid.shape_yx)
    choices = random_choices(grid, levels, seed)
    run = Coarse(grid, window, image, block_px)
    for chosen in choices:
        run.add(chosen)
    tiles = sorted(set(tiles_of(grid)).union(*choices))
    predictions = plain_predictions(grid, tiles, image, opinionated)
    np.testing.assert_allclose(run.chroma, plain_weighted_mean(grid, window, predictions), atol=1e-3)
    assert_agreements_are_close(run.agreement, plain_agreement(grid, window, predictions))


@examples(15)
@given(grids_to_refine, windows, st.sampled_from([32, 64, 96]), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_bytes_of_a_refinement_do_not_depend_on_blocks_or_batches(grid, window, block_px, batch, seed):
    image = picture(grid.shape_yx)
    palette = Anchor(np.random.default_rng(seed).normal(0, 20, (2, 11, 11)).astype(np.float32), 16)
    one = Coarse(grid, window, image, 256, palette)
    other = Coarse(grid, window, image, block_px, palette, batch)
    for chosen in random_choices(grid, 2, seed):
        one.add(chosen)
        other.add(chosen)
    assert one.chroma.tobytes() == other.chroma.tobytes()
    assert one.agreement.spread.tobytes() == other.agreement.spread.tobytes()


def test_only_the_chosen_tiles_are_predicted_and_other_places_stay_as_they_are():
    grid = TileGrid.of((160, 160), (64, 64), (32, 32), 32)
    run = Coarse(grid, "hann", picture((160, 160)), 256)
    assert run.predicted == len(grid)
    before = run.chroma.copy()
    run.add({(16, 16), (16, 48)})
    assert run.predicted == len(grid) + 2
    changed = np.abs(run.chroma - before).max(0) > 1e-3
    rows, columns = np.nonzero(changed)
    # Hann is next to nothing at the very edge of a tile, but both tiles show.
    assert (rows.min(), columns.min()) >= (16, 16)
    assert (rows.max(), columns.max()) <= (79, 111)
    assert changed[17:79, 17:111].mean() > 0.9


@pytest.mark.parametrize("block_px", [64, 256])
def test_adding_all_tiles_is_the_finer_grid(block_px):
    grid = TileGrid.of((150, 140), (64, 64), (32, 32), 16)
    image = picture(grid.shape_yx)
    run = Coarse(grid, "hann", image, block_px)
    run.add(set(tiles_of(grid.refined())) - set(tiles_of(grid)))
    finer = Coarse(grid.refined(), "hann", image, block_px)
    np.testing.assert_allclose(run.chroma, finer.chroma, atol=1e-3)
    assert_agreements_are_close(run.agreement, finer.agreement)
