"""The anchor against plain means and straight-line interpolation in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.colour.lab import lightness_from_samples
from pipeline.tiling import anchor as module
from pipeline.tiling.anchor import Anchor, anchor_of, apply_anchor, canvas_px, cell_px, has_anchor, overview, shrinking
from pipeline.tiling.grid import TileGrid
from tests.pipeline.plain import (
    echo,
    picture,
    plain_predictions,
    plain_weighted_mean,
    position_dependent,
    run_blocks,
    tiles_of,
)
from tests.strategies import examples, windows

# What the report says of the two bands: of the low one this much is the anchor's.
WEIGHT = 0.85

offsets = st.integers(0, 300)
seeds = st.integers(0, 2**32 - 1)


def noise(shape_yx, seed=0, deviation=20):
    return np.random.default_rng(seed).normal(0, deviation, (2, *shape_yx)).astype(np.float32)


def reader(samples, asked=None):
    def read(roi):
        if asked is not None:
            asked.append(roi)
        return samples[roi.rows, roi.columns]

    return read


def plain_means(plane, factor):
    """Means over squares of ``factor`` pixels of a plane whose last pixels are repeated to fill the last squares."""
    height, width = plane.shape
    grown = np.pad(plane.astype(float), [(0, -height % factor), (0, -width % factor)], mode="edge")
    return grown.reshape(grown.shape[0] // factor, factor, -1, factor).mean((1, 3))


def straight(values, places):
    """Values at 0, 1, 2 ... along the last axis, on straight lines between them and constant beyond."""
    at = np.clip(places, 0, values.shape[-1] - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, values.shape[-1] - 1)
    return values[..., low] * (1 - (at - low)) + values[..., high] * (at - low)


def both_ways(values, rows, columns):
    return straight(straight(values, columns).swapaxes(-1, -2), rows).swapaxes(-1, -2)


def area_means(chroma, counts):
    """Means over ``counts`` equal parts of each axis, which may cut through pixels."""
    for axis, count in zip((1, 2), counts, strict=True):
        moved = np.repeat(np.moveaxis(chroma.astype(float), axis, -1), count, axis=-1)
        moved = moved.reshape(*moved.shape[:-1], count, -1).mean(-1)
        chroma = np.moveaxis(moved, -1, axis)
    return chroma


def plainly_anchored(chroma, tile_yx, anchor):
    """By the book: the tile's own cells, the palette at the middle of each, and straight lines between middles."""
    sizes = chroma.shape[1:]
    counts = [max(1, size // anchor.cell_px) for size in sizes]
    middles = [
        (start + (np.arange(count) + 0.5) * size / count) / anchor.cell_px - 0.5
        for start, count, size in zip(tile_yx, counts, sizes, strict=True)
    ]
    correction = WEIGHT * (both_ways(anchor.cells.astype(float), *middles) - area_means(chroma, counts))
    pixels = [(np.arange(size) + 0.5) * count / size - 0.5 for count, size in zip(counts, sizes, strict=True)]
    return chroma + both_ways(correction, *pixels)


@given(st.integers(1, 200_000), st.integers(1, 200_000))
def test_a_scan_is_shrunk_until_its_long_side_has_257_to_512_px(height, width):
    factor = shrinking((height, width))
    longest = -(-max(height, width) // factor)
    assert longest <= 512
    assert longest > 256 or factor == 1
    assert factor & (factor - 1) == 0
    assert cell_px((height, width)) == max(16, factor)


def test_a_scan_that_one_tile_shows_whole_has_no_anchor():
    assert not has_anchor((256, 256), (256, 256))
    assert not has_anchor((100, 256), (256, 256))
    assert has_anchor((100, 257), (256, 256))
    assert has_anchor((257, 100), (256, 256))


@pytest.mark.parametrize("shape", [(1, 1), (37, 512), (513, 40), (700, 1301), (90, 5001), (2049, 4100)])
def test_the_overview_is_the_plain_means_of_the_lightness(shape):
    samples = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    asked = []
    small = overview(reader(samples, asked), shape, shrinking(shape))
    factor = shrinking(shape)
    assert small.dtype == np.float32
    np.testing.assert_allclose(small, plain_means(lightness_from_samples(samples), factor), rtol=1e-4, atol=1e-3)
    assert max(max(roi.shape_yx) for roi in asked) <= 2048


def test_the_overview_of_colour_and_of_16_bits_is_of_its_lightness():
    samples = np.random.default_rng(1).integers(0, 2**16, (530, 31, 3), np.uint16)
    expected = plain_means(lightness_from_samples(samples), 2)
    found = overview(reader(samples), (530, 31), shrinking((530, 31)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(300, 401), (700, 1301), (1030, 9000)])
def test_the_window_that_is_read_does_not_matter(monkeypatch, shape):
    samples = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    one = overview(reader(samples), shape, shrinking(shape))
    monkeypatch.setattr(module, "_WINDOW_PX", 64)
    np.testing.assert_allclose(overview(reader(samples), shape, shrinking(shape)), one, rtol=1e-5)


@given(st.integers(1, 700))
def test_the_canvas_is_the_smallest_from_512_that_the_network_takes(multiple):
    side = canvas_px(multiple)
    assert side % multiple == 0
    assert 512 <= side < 512 + multiple


@pytest.mark.parametrize(("shape", "side"), [((300, 401), 512), ((700, 1301), 512), ((40, 9000), 528)])
def test_the_network_sees_the_whole_scan_in_one_pass_and_its_cells_are_the_palette(shape, side):
    samples = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    seen = []

    def predict(tiles):
        seen.append(tiles.copy())
        return np.concatenate([tiles, 100 - tiles], axis=1)

    palette = anchor_of(reader(samples), shape, side, predict)
    (canvas,) = seen
    assert canvas.shape == (1, 1, side, side)
    assert canvas.dtype == np.float32
    lightness, factor = lightness_from_samples(samples), shrinking(shape)
    small = plain_means(lightness, factor)
    np.testing.assert_allclose(canvas[0, 0, : small.shape[0], : small.shape[1]], small, rtol=1e-4, atol=1e-3)
    reflected = np.pad(small, [(0, side - extent) for extent in small.shape], mode="symmetric")
    np.testing.assert_allclose(canvas[0, 0], reflected, rtol=1e-4, atol=1e-3)
    assert palette.cell_px == max(16, factor)
    assert palette.cells.shape == (2, *(-(-extent // palette.cell_px) for extent in shape))
    # Cells that lie wholly in the scan hold its means; at the far edges pixels are repeated, one way or the other.
    whole = tuple(extent // palette.cell_px for extent in shape)
    cells = plain_means(lightness[: whole[0] * palette.cell_px, : whole[1] * palette.cell_px], palette.cell_px)
    np.testing.assert_allclose(palette.cells[0, : whole[0], : whole[1]], cells, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(palette.cells[1], 100 - palette.cells[0], atol=1e-3)


@examples(60)
@given(st.integers(1, 70), st.integers(1, 70), offsets, offsets, st.sampled_from([16, 32, 128]), seeds)
def test_a_plain_tile_goes_085_of_the_way_to_a_plain_palette(height, width, top, left, cell, seed):
    own, palette = np.random.default_rng(seed).uniform(-80, 80, (2, 2)).astype(np.float32)
    tile = np.broadcast_to(own[:, None, None], (2, height, width))
    cells = np.broadcast_to(palette[:, None, None], (2, 3, 5)).copy()
    expected = own + WEIGHT * (palette - own)
    result = apply_anchor(tile, (top, left), Anchor(cells, cell))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.broadcast_to(expected[:, None, None], tile.shape), atol=1e-3)


@examples(60)
@given(st.integers(1, 6), st.integers(1, 6), offsets, offsets, seeds)
def test_detail_within_cells_stays_the_tiles_own_whatever_the_palette(rows, columns, top, left, seed):
    base = noise((rows * 16, columns * 16), seed)
    detail = noise(base.shape[1:], seed + 1)
    detail -= np.kron(area_means(detail, (rows, columns)), np.ones((16, 16))).astype(np.float32)
    palette = Anchor(noise((12, 12), seed + 2), 16)
    added = apply_anchor(base + detail, (top, left), palette) - apply_anchor(base, (top, left), palette)
    np.testing.assert_allclose(added, detail, atol=1e-3)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 6), st.integers(0, 6), seeds)
def test_a_tile_whose_low_band_is_the_palette_stays_as_it_is(rows, columns, top, left, seed):
    tile = noise((rows * 16, columns * 16), seed)
    cells = noise((12, 12), seed + 1)
    cells[:, top : top + rows, left : left + columns] = area_means(tile, (rows, columns))
    np.testing.assert_allclose(apply_anchor(tile, (top * 16, left * 16), Anchor(cells, 16)), tile, atol=1e-3)


@examples(60)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2), st.integers(0, 2), seeds)
def test_what_two_tiles_differ_by_shrinks_to_015(top, left, down, right, seed):
    """Neighbours with different opinions of one place, whatever the palette: the step between them, and so the seam."""
    size, palette = 64, Anchor(noise((9, 9), seed), 16)
    one, other = np.random.default_rng(seed).uniform(-60, 60, (2, 2)).astype(np.float32)
    starts = (top * 16, left * 16), ((top + down) * 16, (left + right) * 16)
    tiles = [
        apply_anchor(np.broadcast_to(opinion[:, None, None], (2, size, size)), start, palette)
        for opinion, start in zip((one, other), starts, strict=True)
    ]
    # Half a cell from the edge of a tile on, where its correction has neighbours on both sides.
    shared = [slice(shift + 8, size - 8) for shift in (16 * down, 16 * right)]
    first = tiles[0][:, *shared]
    second = tiles[1][:, *(slice(8, 8 + s.stop - s.start) for s in shared)]
    expected = np.broadcast_to(0.15 * (one - other)[:, None, None], first.shape)
    np.testing.assert_allclose(first - second, expected, atol=1e-3)


@examples(60)
@given(
    st.integers(0, 400),
    st.integers(0, 400),
    st.floats(-4, 4, width=32),
    st.floats(-4, 4, width=32),
    st.integers(32, 100),
    st.sampled_from([16, 32, 64]),
)
def test_a_tile_that_starts_anywhere_takes_the_palette_from_straight_lines(top, left, slope_y, slope_x, size, cell):
    """A palette that is one slope gives a slope, wherever between its cells the tile lies."""
    middles = np.arange(24) + 0.5
    cells = np.stack([np.add.outer(slope_y * middles, slope_x * middles)] * 2).astype(np.float32)
    top, left = top + cell, left + cell  # a cell away from the edges, where the palette ends
    limit = 23 * cell - size
    top, left = min(top, limit), min(left, limit)
    result = apply_anchor(np.zeros((2, size, size), np.float32), (top, left), Anchor(cells, cell))
    places = [(start + np.arange(size) + 0.5) / cell for start in (top, left)]
    expected = WEIGHT * np.add.outer(slope_y * places[0], slope_x * places[1])
    margin = -(-size // max(1, size // cell)) // 2 + 1 if size // cell > 1 else size // 2
    inner = slice(margin, size - margin)
    np.testing.assert_allclose(result[0][inner, inner], expected[inner, inner], atol=2e-3)


@examples(60)
@given(st.integers(16, 100), st.integers(16, 100), offsets, offsets, st.sampled_from([16, 32, 64]), seeds)
def test_equals_the_plain_two_bands(height, width, top, left, cell, seed):
    tile = noise((height, width), seed)
    palette = Anchor(noise((5, 7), seed + 1), cell)
    expected = plainly_anchored(tile, (top, left), palette)
    np.testing.assert_allclose(apply_anchor(tile, (top, left), palette), expected, atol=5e-3)


@examples(25)
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(1, 3),
    windows,
    st.integers(9, 64),
    st.integers(9, 64),
    st.integers(1, 5),
)
def test_bytes_do_not_depend_on_the_block_division(height, width, step, window, block_px, other_px, batch):
    grid = TileGrid.of((height, width), (48, 48), (16 * step, 16 * step), 16)
    image = picture(grid.shape_yx)
    palette = Anchor(noise((10, 10)), 16)
    one = run_blocks(grid, window, image, position_dependent, block_px, batch, palette)
    other = run_blocks(grid, window, image, position_dependent, other_px, 3, palette)
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("window", ["average", "hann"])
def test_blocks_are_the_plain_average_of_anchored_tiles(window):
    grid = TileGrid.of((130, 170), (64, 64), (32, 32), 32)
    image, palette = picture(grid.shape_yx), Anchor(noise((9, 11)), 16)
    alone = plain_predictions(grid, tiles_of(grid), image, position_dependent)
    together = [(tile, plainly_anchored(chroma, tile, palette)) for tile, chroma in alone]
    expected = plain_weighted_mean(grid, window, together)
    blended = run_blocks(grid, window, image, position_dependent, 64, anchor=palette)
    np.testing.assert_allclose(blended, expected, rtol=2e-5, atol=5e-3)


def test_an_anchor_of_what_the_tiles_say_anyway_changes_nothing_within_the_scan():
    """The identity engine, whole way round: the palette of a smooth picture is what its tiles show themselves."""
    samples = np.tile(np.kron(np.arange(0, 240, 10), np.ones(16)).astype(np.uint8), (160, 1))
    grid = TileGrid.of(samples.shape, (64, 64), (32, 32), 32)
    palette = anchor_of(reader(samples), samples.shape, 512, echo)
    lightness = lightness_from_samples(samples)
    blended = run_blocks(grid, "hann", lightness, echo, 96, anchor=palette)
    np.testing.assert_allclose(blended, np.stack([lightness, lightness]), atol=2e-3)


@pytest.mark.parametrize(
    ("shape_yx", "tile_px", "wanted"),
    [
        ((2048, 4096), 256, True),
        ((256, 256), 256, False),  # the tile sees it all
        ((1024, 8192), 256, True),
        ((1024, 131072), 256, False),  # 4 px high when shrunk
        ((300, 200), 256, True),
    ],
)
def test_a_scan_has_an_anchor_where_that_shows_more_than_a_tile_and_is_a_picture(shape_yx, tile_px, wanted):
    assert has_anchor(shape_yx, (tile_px, tile_px)) is wanted
