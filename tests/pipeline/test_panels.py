"""Pages of several pictures are cut between them; one picture, whatever lines are in it, is not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.palettes.panels import panels_of
from pipeline.palettes.windows import distribution_of, palette_of
from pipeline.types import Roi

SCANS = Path(__file__).parents[1] / "scans"
SIDE = 300


def _photographs() -> list[np.ndarray]:
    """Squares of real photographs that have nothing to do with each other, in L* near enough."""
    squares = []
    for picture in (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(SCANS.glob("*.[jp][pn]g"))):
        side = min(picture.shape) // 2
        for y in (0, picture.shape[0] - side):
            for x in (0, picture.shape[1] - side):
                square = cv2.resize(picture[y : y + side, x : x + side], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
                squares.append(square.astype(np.float32) / np.float32(2.55))
    return [squares[i] for i in np.random.default_rng(4).permutation(len(squares))]


def _page(rows: int, columns: int, gutter: int = 0, margin: int = 0) -> np.ndarray:
    noise = np.random.default_rng(0)
    height, width = (n * SIDE + (n - 1) * gutter + 2 * margin for n in (rows, columns))
    page = noise.normal(92, 0.8, (height, width)).astype(np.float32)
    photographs = _photographs()
    for number in range(rows * columns):
        y, x = (margin + place * (SIDE + gutter) for place in divmod(number, columns))
        page[y : y + SIDE, x : x + SIDE] = photographs[number % len(photographs)]
    return page


def _places(rows: int, columns: int, gutter: int, margin: int) -> list[Roi]:
    starts = [
        (margin + row * (SIDE + gutter), margin + column * (SIDE + gutter))
        for row in range(rows)
        for column in range(columns)
    ]
    return [Roi(y, y + SIDE, x, x + SIDE) for y, x in starts]


def _found(page: np.ndarray, factor: int = 1) -> tuple[Roi, ...]:
    return panels_of(page, factor, (page.shape[0] * factor, page.shape[1] * factor))


@pytest.mark.parametrize(("rows", "columns", "gutter", "margin"), [(2, 3, 30, 0), (2, 2, 24, 40), (1, 3, 12, 0)])
def test_pictures_on_paper_are_found_one_by_one(rows: int, columns: int, gutter: int, margin: int) -> None:
    found = _found(_page(rows, columns, gutter, margin))
    for place in _places(rows, columns, gutter, margin):
        near = [roi for roi in found if _overlap(roi, place) > 0.6]
        assert len(near) == 1, (place, found)


def _overlap(one: Roi, other: Roi) -> float:
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    together = max(0, height) * max(0, width)
    return together / (np.prod(one.shape_yx) + np.prod(other.shape_yx) - together)


def test_pictures_edge_to_edge_are_cut_where_they_meet() -> None:
    found = _found(_page(3, 3))
    edges = {edge for roi in found for edge in (roi.y0, roi.x0)} - {0}
    assert len([edge for edge in (SIDE, 2 * SIDE) if min(abs(edge - each) for each in edges) <= 4]) == 2
    assert sum(np.prod(roi.shape_yx) for roi in found) == pytest.approx((3 * SIDE) ** 2, rel=0.01)


def test_places_are_those_of_the_scan_however_much_it_was_shrunk() -> None:
    page = _page(2, 3, 30)
    small, large = _found(page), _found(page, 16)
    assert len(small) == len(large) >= 6
    for one, sixteen in zip(small, large, strict=True):
        near = [v * 16 for v in (one.y0, one.y1, one.x0, one.x1)]
        assert [sixteen.y0, sixteen.y1, sixteen.x0, sixteen.x1] == pytest.approx(near, abs=16)


@pytest.mark.parametrize("number", range(6))
def test_one_photograph_is_one_picture(number: int) -> None:
    assert _found(np.asarray(cv2.resize(_photographs()[number], (900, 900), interpolation=cv2.INTER_CUBIC))) == ()


def test_horizon_wall_and_frame_are_no_cuts() -> None:
    noise = np.random.default_rng(1)
    y, x = np.mgrid[:800, :900]
    picture = (70 - 35 * (y > 420) + 3 * np.sin(x / 90) - 12 * (x > 500)).astype(np.float32)
    picture += noise.normal(0, 1.5, picture.shape).astype(np.float32)
    assert _found(picture) == ()
    picture[380:388] = 5  # a pole across the picture
    assert _found(picture) == ()


def test_each_picture_of_a_page_gets_the_palette_that_it_gets_alone() -> None:
    """A network that says one thing of what it sees: here, whether it is bright on the whole."""

    def see(lightness: np.ndarray) -> np.ndarray:
        bright = np.float32(np.clip(lightness.mean() / 100, 0.02, 0.98))
        return np.broadcast_to(np.array([bright, 1 - bright], np.float32)[:, None, None], (2, 16, 16)).copy()

    page, colours = _page(2, 3, 30), np.array([[60, 0], [-60, 0]], np.float32)
    found = distribution_of(lambda roi: page[roi.rows, roi.columns], page.shape, 224, 16, see)
    palette = palette_of(found, colours, page.shape)
    for number, place in enumerate(_places(2, 3, 30, 0)):
        alone = 60 * (2 * _photographs()[number].mean() / 100 - 1)
        middle = palette.under((place.y0 + 100, place.x0 + 100), (100, 100))[0].mean()
        assert middle == pytest.approx(alone, abs=8)
