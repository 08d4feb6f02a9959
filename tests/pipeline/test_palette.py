"""Palettes: what a tile sees of one, and how the windows of a scan become one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from pipeline.palettes.windows import LEAST_WINDOW_PX, distribution_of, palette_grid, palette_of
from pipeline.tiling.grid import TileAxis, TileGrid
from pipeline.tiling.infer import BlockInput, colorize_block
from pipeline.tiling.palette import Palette, cubic_weights, enlarged
from pipeline.types import Roi

SIDE, CELLS = 224, 16


@given(st.integers(1, 40), st.floats(0.3, 300), st.integers(-50, 4000), st.integers(1, 300))
def test_weights_of_every_pixel_sum_to_one(cells: int, cell: float, origin: int, length: int) -> None:
    weights = cubic_weights(origin, length, cell, cells)
    assert weights.shape == (length, cells)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)


def test_enlarging_is_the_published_cubic_convolution() -> None:
    # Pillow's BICUBIC is Keys' with a = -0.5, with the edges' weights shared out instead of the last cell repeated: so
    # it is compared inside.
    image = pytest.importorskip("PIL.Image")
    cells = np.random.default_rng(0).normal(0, 30, (1, 12, 9)).astype(np.float32)
    ours = enlarged(cells, (0, 0), (12 * 7, 9 * 7), (7, 7))[0]
    theirs = np.asarray(image.fromarray(cells[0], "F").resize((63, 84), image.Resampling.BICUBIC))
    np.testing.assert_allclose(ours[14:-14, 14:-14], theirs[14:-14, 14:-14], atol=1e-3)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 200), st.integers(1, 200))
def test_a_tile_sees_what_the_whole_shows_there(y: int, x: int, height: int, width: int) -> None:
    palette = Palette(np.random.default_rng(1).normal(0, 30, (2, 9, 13)).astype(np.float32), (71.4, 53.2))
    cells = np.random.default_rng(1).normal(0, 30, (2, 9, 13)).astype(np.float32)
    palette = Palette(cells, (71.4, 53.2))
    whole = palette.under((0, 0), (700, 700))
    np.testing.assert_allclose(
        palette.under((y, x), (height, width)), whole[:, y : y + height, x : x + width], atol=1e-4
    )


@given(st.integers(16, 70_000), st.integers(16, 70_000))
def test_windows_cover_the_scan_and_stay_inside(height: int, width: int) -> None:
    grid = palette_grid((height, width), CELLS)
    assert grid.windows[0] == Roi(0, height, 0, width)
    assert CELLS <= min(grid.rows, grid.columns) <= max(grid.rows, grid.columns) <= 192
    for window in grid.windows[1:]:
        assert 0 <= window.y0 < window.y1 <= height
        assert 0 <= window.x0 < window.x1 <= width
        is_corner = all(part >= 0.75 * whole for part, whole in zip(window.shape_yx, (height, width), strict=True))
        assert is_corner or window.shape_yx[0] == window.shape_yx[1] >= min(min(height, width), LEAST_WINDOW_PX)


def _read(picture: np.ndarray):  # type: ignore[no-untyped-def]
    return lambda roi: picture[roi.rows, roi.columns]


def _dark_and_bright(lightness: np.ndarray) -> np.ndarray:
    """A network that says of each cell only how bright it is."""
    bright = cv2.resize(lightness, (CELLS, CELLS), interpolation=cv2.INTER_AREA) / 100
    return np.stack([bright, 1 - bright]).clip(0.02, 0.98).astype(np.float32)


@pytest.mark.parametrize("shape_yx", [(300, 320), (250, 1100), (1300, 260), (900, 9000)])
def test_windows_together_say_what_each_says_of_its_part(shape_yx: tuple[int, int]) -> None:
    y, x = np.mgrid[: shape_yx[0], : shape_yx[1]]
    lightness = (50 + 30 * np.sin(x / shape_yx[1] * 5) * np.cos(y / shape_yx[0] * 2)).astype(np.float32)
    found = distribution_of(_read(lightness), shape_yx, SIDE, CELLS, _dark_and_bright)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    palette = palette_of(found, np.array([[100, 0], [0, 0]], np.float32), shape_yx)
    assert np.abs(palette.under((0, 0), shape_yx)[0] - lightness).mean() < 1.5


def test_a_sure_window_outweighs_an_unsure_whole() -> None:
    # The whole is asked first and knows nothing; the squares of a long scan know.
    answers = iter([np.full((2, CELLS, CELLS), 0.5, np.float32)] + [np.full((2, CELLS, CELLS), 0, np.float32)] * 3)

    def see(_: np.ndarray) -> np.ndarray:
        answer = next(answers)
        if not answer.any():
            answer[0], answer[1] = 0.99, 0.01
        return answer

    found = distribution_of(_read(np.zeros((256, 512), np.float32)), (256, 512), SIDE, CELLS, see)
    assert found[0, 8, 16] > 0.8  # a plain mean of the two would be 0.75


def test_a_panorama_has_the_palette_of_its_parts() -> None:
    # Twenty squares in a row, each of one gray: as bright as each alone.
    grays = np.random.default_rng(0).uniform(10, 90, 20).astype(np.float32)
    strip = np.repeat(np.repeat(grays, 256)[None], 256, axis=0)

    def see(lightness: np.ndarray) -> np.ndarray:
        bright = cv2.resize(lightness, (CELLS, CELLS), interpolation=cv2.INTER_AREA) / 100
        is_one = lightness.std() < 1
        shares = np.stack([bright, 1 - bright]) if is_one else np.full((2, CELLS, CELLS), 0.5)
        return shares.astype(np.float32)

    found = distribution_of(_read(strip), strip.shape, SIDE, CELLS, see)
    middles = [found[0, 8, round((i + 0.5) * found.shape[2] / 20)] for i in range(20)]
    assert np.corrcoef(middles, grays)[0, 1] > 0.95


def test_a_model_that_takes_a_palette_is_given_lightness_and_what_lies_under_each_tile() -> None:
    shape_yx, tile = (100, 140), 32
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 256, shape_yx, dtype=np.uint8)
    palette = Palette(rng.normal(0, 20, (2, 4, 5)).astype(np.float32), (25, 28))
    grid = TileGrid(*(TileAxis(extent, tile, 16) for extent in shape_yx))

    def predict(given: np.ndarray) -> np.ndarray:
        assert given.shape[1:] == (3, tile, tile)
        return given[:, 1:]

    block = grid.block((0, 0), 512)
    made = colorize_block(BlockInput(grid, block, "hann", samples, palette=palette), predict, 4)
    whole = palette.under((0, 0), shape_yx)
    np.testing.assert_allclose(made[:, : shape_yx[0], : shape_yx[1]], whole, atol=1e-3)


def test_under_agrees_with_an_independent_spline_in_the_middle_of_cells() -> None:
    cells = np.random.default_rng(3).normal(0, 20, (2, 8, 8)).astype(np.float32)
    palette = Palette(cells, (15, 15))
    # At the middle of a cell cubic convolution is the cell's own value, as an interpolation must be.
    got = palette.under((0, 0), (120, 120))[:, 7::15, 7::15]
    exact = np.stack([map_coordinates(plane, np.mgrid[:8, :8], order=1) for plane in cells])
    np.testing.assert_allclose(got, exact, atol=1e-4)
