"""Figures of a version, and which tiles would mend it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.colour.lab import lightness_from_samples
from pipeline.palettes.doubt import Doubt
from pipeline.quality.figures import Quality
from pipeline.quality.score import disagreement_map, has_helped, levels_of, measure, refined, tiles_to_add
from pipeline.quality.seams import seam_score
from pipeline.store import SCAN_SHARD_PX, BlockTiming, ScanStore, Source
from pipeline.tiling.grid import TileGrid
from pipeline.tiling.infer import BlockResult
from pipeline.tiling.overlap_stats import OverlapStats, squares
from pipeline.types import Roi, ScanInfo
from tests.pipeline.plain import tiles_of
from tests.strategies import examples

BLOCK_PX = 512


def grid_of(tile, stride, shape_yx=(1000, 1000)):
    return TileGrid.of(shape_yx, (tile, tile), (stride, stride))


@pytest.mark.parametrize(
    ("tile", "stride", "strides"),
    [
        (256, 128, [128, 64, 32]),
        (256, 256, [256, 128, 64, 32]),
        (256, 32, [32]),
        (256, 16, [16]),
        (256, 96, [96, 48]),
        (512, 128, [128, 64]),
        (120, 45, [45]),
    ],
)
def test_strides_are_halved_down_to_an_eighth_of_the_tile(tile, stride, strides):
    grid = grid_of(tile, stride)
    assert levels_of(grid) == len(strides)
    assert [refined(grid, level).y.stride for level in range(levels_of(grid))] == strides
    assert refined(grid, 0) == grid


def test_the_axis_that_is_as_fine_as_can_be_ends_it_for_both():
    assert levels_of(TileGrid.of((1000, 1000), (256, 256), (128, 32))) == 1


def worth_of(spread, tile_yx, size):
    """Mean spread of the squares of 32 px in the middle half of a tile; of the nearest one where it holds none."""
    spans = []
    for start, count in zip(tile_yx, spread.shape, strict=True):
        first = min((start + size // 4) // 32, count - 1)
        spans.append(slice(first, max(first + 1, (start + size - size // 4) // 32)))
    return spread[tuple(spans)].mean(dtype=float)


def there_before(grid, earlier):
    tiles = set(tiles_of(grid))
    for level, chosen in enumerate(earlier, 1):
        of_level = refined(grid, level)
        tiles |= {(of_level.y.starts[i], of_level.x.starts[j]) for i, j in np.argwhere(chosen)}
    return tiles


@st.composite
def situations(draw):
    """A grid, what was added to it so far, and the spread of its squares."""
    stride = draw(st.sampled_from([16, 32, 64]))
    tile = stride * draw(st.integers(1, 2))
    grid = grid_of(tile, stride, draw(st.tuples(st.integers(1, 300), st.integers(1, 300))))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = random.gamma(1, 5, [squares(extent) for extent in grid.shape_yx]).astype(np.float32)
    earlier = []
    for level in range(1, draw(st.integers(0, 2)) + 1):
        fine = refined(grid, level)
        shape = (len(fine.y.starts), len(fine.x.starts))
        known = there_before(grid, earlier)
        new = np.array([tile not in known for tile in tiles_of(fine)]).reshape(shape)
        earlier.append(new & (random.random(shape) < draw(st.sampled_from([0.1, 0.6]))))
    return grid, earlier, spread


scores = st.floats(1.06, 3)


@examples(60)
@given(situations(), scores)
def test_only_new_tiles_are_added_and_those_where_tiles_disagree_most(situation, score):
    grid, earlier, spread = situation
    fine = refined(grid, len(earlier) + 1)
    added = tiles_to_add(spread, grid, earlier, score, 1.05)
    assert added.shape == (len(fine.y.starts), len(fine.x.starts))
    known = there_before(grid, earlier)
    worths = {tile: worth_of(spread, tile, grid.y.size) for tile in tiles_of(fine) if tile not in known}
    chosen = {tile for tile, is_in in zip(tiles_of(fine), added.ravel(), strict=True) if is_in}
    assert chosen <= set(worths)
    assert bool(chosen) == bool(worths)
    left = [worth for tile, worth in worths.items() if tile not in chosen]
    if chosen and left:
        assert min(worths[tile] for tile in chosen) >= max(left) - 1e-5


@examples(60)
@given(situations(), scores, scores, st.floats(1.01, 1.5))
def test_the_further_from_the_goal_the_more_tiles(situation, score, other, wanted):
    grid, earlier, spread = situation
    near, far = sorted((score, other))
    few = tiles_to_add(spread, grid, earlier, near, wanted)
    many = tiles_to_add(spread, grid, earlier, far, wanted)
    assert (many | few == many).all()


def test_a_score_far_off_takes_all_and_one_nearly_there_takes_few():
    grid = grid_of(64, 32)
    spread = np.random.default_rng(0).uniform(1, 10, (32, 32)).astype(np.float32)
    new = len(refined(grid, 1)) - len(grid)
    assert tiles_to_add(spread, grid, [], 10, 1.05).sum() == new
    assert 0 < tiles_to_add(spread, grid, [], 1.0501, 1.05).sum() < 0.1 * new


def test_one_place_where_tiles_disagree_gets_the_tiles():
    grid = grid_of(128, 64, (2000, 2000))
    spread = np.zeros((63, 63), np.float32)
    spread[30:34, 40:44] = 15
    added = tiles_to_add(spread, grid, [], 2, 1.05)
    fine = refined(grid, 1)
    tiles = [(fine.y.starts[i], fine.x.starts[j]) for i, j in np.argwhere(added)]
    assert tiles
    assert all(960 - 128 < y < 1088 and 1280 - 128 < x < 1408 for y, x in tiles)


def test_where_all_tiles_agree_or_all_are_there_none_is_added():
    grid = grid_of(64, 32)
    assert not tiles_to_add(np.zeros((32, 32), np.float32), grid, [], 2, 1.05).any()
    fine = refined(grid, 1)
    new = tiles_to_add(np.ones((32, 32), np.float32), grid, [], 1e9, 1.05)
    assert new.sum() == len(fine) - len(grid)
    assert not tiles_to_add(np.ones((32, 32), np.float32), fine, [], 2, 1.05)[::2, ::2].any()
    tiny = TileGrid.of((10, 10), (64, 64), (64, 64))
    assert not tiles_to_add(np.ones((1, 1), np.float32), tiny, [], 2, 1.05).any()


@pytest.mark.parametrize(("before", "after", "helped"), [(1.5, 1.1, True), (1.5, 1.44, True), (1.5, 1.46, False)])
def test_a_refinement_has_helped_where_a_tenth_of_the_seams_is_gone(before, after, helped):
    assert has_helped(before, after) == helped
    assert not has_helped(before, before)
    assert not has_helped(after, before)


def test_a_tile_of_128_px_is_refined_down_to_a_stride_of_16():
    """--tile 128 --quality 1.05 with a network that wants multiples of 32."""
    grid = TileGrid.of((300, 300), (128, 128), (64, 64), 32)
    spread = np.ones((10, 10), np.float32)
    first = tiles_to_add(spread, grid, [], 2, 1.05)
    assert levels_of(grid) == 3
    assert tiles_to_add(spread, grid, [first], 2, 1.05).any()


@pytest.mark.parametrize("seam", [None, 1.0321])
def test_figures_come_back_from_json(seam):
    quality = Quality(seam, 1.01, seam, 3.25, 11.5, ((128, 128), (64, 32)))
    assert Quality.from_json(json.loads(json.dumps(quality.to_json()))) == quality
    assert ("1.03" in str(quality)) == (seam is not None)
    assert "3.2" in str(quality)


def test_other_json_is_refused():
    with pytest.raises(KeyError):
        Quality.from_json({"seam": 1.0})
    values = Quality(None, None, None, 0.0, 0.0, ((1, 1),)).to_json()
    with pytest.raises(TypeError):
        Quality.from_json({**values, "more": 1})
    with pytest.raises(TypeError):
        Quality.from_json({name: value for name, value in values.items() if name != "seam"})


def make_store(folder, shape_yx, chroma, spread, scale=1.0, weight=None):
    """A finished version of these colours, whose tiles disagreed by ``spread``."""
    scan = np.random.default_rng(0).integers(0, 256, shape_yx, np.uint8)
    store = ScanStore.create(folder / "a.zarr", ScanInfo(shape_yx, 1, "uint8", {}), Source("a.tif", 1, "0"))
    store.write_scan(Roi(0, *shape_yx[:1], 0, shape_yx[1]), scan)
    assert max(shape_yx) <= SCAN_SHARD_PX
    version = store.create_version("v", {}, BLOCK_PX, scale, "2000-01-01", levels=3)
    weight = np.ones_like(spread) if weight is None else weight
    for block in grid_of(BLOCK_PX, BLOCK_PX, shape_yx).blocks(BLOCK_PX):
        roi = block.write_roi
        there = [slice(r.start // 32, squares(r.stop)) for r in (roi.rows, roi.columns)]
        agreement = OverlapStats(np.zeros((2, *spread[tuple(there)].shape)), spread[tuple(there)], weight[tuple(there)])
        made = BlockResult(chroma[:, roi.rows, roi.columns], agreement)
        version.write(block.index_yx, made, version.attempt, BlockTiming(1, 0.1))
    version.finish()
    return store, version, scan


def coloured_tiles(shape_yx, stride, seed=0):
    """Noise with an opinion a tile, in numbers that float16 holds."""
    random = np.random.default_rng(seed)
    opinions = random.integers(-30, 30, (2, *(-(-extent // stride) for extent in shape_yx)))
    plain = np.kron(opinions, np.ones((1, stride, stride)))[:, : shape_yx[0], : shape_yx[1]]
    return (plain + random.integers(-2, 3, plain.shape)).astype(np.float32)


@pytest.mark.parametrize(("levels", "tile_stride"), [(0, 64), (1, 64), (1, 32)])
def test_figures_are_those_of_whole_arrays_and_the_worst_grid_counts(tmp_path, levels, tile_stride):
    shape_yx = (600, 700)
    chroma = coloured_tiles(shape_yx, tile_stride)
    random = np.random.default_rng(1)
    spread = random.uniform(0, 30, [squares(extent) for extent in shape_yx]).astype(np.float32)
    weight = np.ones_like(spread)
    spread[-1], weight[-1] = 0, 0  # no tile covers all of the last squares: they say nothing
    store, version, scan = make_store(tmp_path, shape_yx, chroma, spread, 0.5, weight)
    grid = grid_of(128, 64, shape_yx)
    if levels:
        version.write_chosen(1, np.zeros((1, 1), bool), 1.2)
    quality = measure(store, version, grid)

    def read(roi):
        return lightness_from_samples(scan)[roi.rows, roi.columns], 0.5 * chroma[:, roi.rows, roi.columns]

    strides = [64, 32][: levels + 1]
    expected = max((seam_score(read, shape_yx, (s, s)) for s in strides), key=lambda found: found.score)
    found = (quality.seam, quality.seam_edge, quality.seam_patch)
    assert found == pytest.approx((expected.score, expected.edge, expected.patch), abs=2e-4)
    assert quality.seam > 2
    assert quality.strides_px == tuple((s, s) for s in strides)
    assert quality.disagreement_mean == pytest.approx(0.5 * spread[:-1].mean(), abs=1e-3)
    assert quality.disagreement_p95 == pytest.approx(0.5 * np.percentile(spread[:-1], 95), abs=1e-3)


def test_a_scan_of_one_tile_has_no_seams(tmp_path):
    shape_yx = (60, 70)
    store, version, _ = make_store(tmp_path, shape_yx, coloured_tiles(shape_yx, 16), np.zeros((2, 3), np.float32))
    quality = measure(store, version, grid_of(128, 64, shape_yx))
    assert (quality.seam, quality.seam_edge, quality.seam_patch) == (None, None, None)
    assert "no grid" in str(quality)


def test_the_map_is_dark_where_tiles_agree_and_bright_where_they_do_not(tmp_path):
    shape_yx = (600, 700)
    spread = np.zeros((19, 22), np.float32)
    spread[:, 7:14], spread[:, 14:] = 10, 40
    store, version, _ = make_store(tmp_path, shape_yx, np.zeros((2, *shape_yx), np.float32), spread)
    shown = disagreement_map(store, version)
    assert shown.dtype == np.uint8
    # As the scan, which ends within the last squares.
    assert shown.shape == (600 // 4, 700 // 4, 3)
    thirds = [shown[:, 8 * first : 8 * last].astype(int) for first, last in ((0, 7), (7, 14), (14, 22))]
    assert all((third == third[0, 0]).all() for third in thirds)
    dark, middle, bright = (third[0, 0].sum() for third in thirds)
    assert dark < 20
    assert dark + 100 < middle < bright - 100
    red, green, blue = thirds[2][0, 0]
    assert min(red, green) > 240 > 200 > blue


def test_the_map_of_a_version_without_colour_is_dark(tmp_path):
    """Scale 0 takes all colour away, and with it all disagreement."""
    chroma = np.zeros((2, 600, 700), np.float32)
    store, version, _ = make_store(tmp_path, (600, 700), chroma, np.full((19, 22), 40, np.float32), 0.0)
    assert disagreement_map(store, version).max() < 20


def test_the_map_of_a_model_that_knows_its_doubt_shows_that():
    cells = np.zeros((4, 8), np.float32)
    cells[:, 6:] = 20
    version = SimpleNamespace(doubt=Doubt(9, 4, 15), doubt_cells=lambda: cells)
    shown = disagreement_map(SimpleNamespace(info=SimpleNamespace(shape_yx=(500, 1000))), version)
    assert shown.shape == (512, 1024, 3)
    assert shown[:, :512].max() < 20
    assert shown[:, 960:, 0].min() > 200


@pytest.mark.parametrize("shape_yx", [(40_000, 700), (500, 33_000), (1, 1)])
def test_the_map_has_1024_px_at_most_and_the_proportions_of_the_scan(shape_yx):
    spread = np.zeros([squares(extent) for extent in shape_yx], np.float32)
    version = SimpleNamespace(scale_factor=1.0, doubt=None, spread=lambda roi: (spread, spread))
    shown = disagreement_map(SimpleNamespace(info=SimpleNamespace(shape_yx=shape_yx)), version)
    assert max(shown.shape) <= 1024
    if max(shape_yx) > 1:
        assert max(shown.shape) > 900
        ratio = shown.shape[0] / shown.shape[1]
        assert ratio == pytest.approx(spread.shape[0] / spread.shape[1], rel=0.05)
