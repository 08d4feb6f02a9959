"""The seam score on colours that are made up: with no grid, with hard edges, with soft patches."""

import cv2
import numpy as np
import pytest

from pipeline.quality import seams as module
from pipeline.quality.seams import SeamScore, seam_score
from pipeline.tiling.weights import hann


def smooth_colours(shape_yx, seed=0, deviation=8.0, grain_px=8):
    """Colours that flow into one another and know of no grid."""
    random = np.random.default_rng(seed)
    planes = [cv2.GaussianBlur(random.normal(size=shape_yx).astype(np.float32), (0, 0), grain_px) for _ in range(2)]
    field = np.stack(planes)
    return (field * (deviation / field.std())).astype(np.float32)


def hard_tiles(shape_yx, stride, seed=0, deviation=3.0):
    """An opinion a tile, side by side: what the plain average of tiles leaves."""
    counts = [-(-extent // stride) for extent in shape_yx]
    opinions = np.random.default_rng(seed).normal(0, deviation, (2, *counts)).astype(np.float32)
    return np.kron(opinions, np.ones((1, stride, stride), np.float32))[:, : shape_yx[0], : shape_yx[1]]


def soft_tiles(shape_yx, stride, seed=0, deviation=6.0):
    """An opinion a tile of twice the stride, blended with Hann's window: no edges, but patches."""
    size = 2 * stride
    weight = np.outer(hann(size), hann(size))
    covered_extent = [-(-extent // stride) * stride + size for extent in shape_yx]
    total, weights = np.zeros((2, *covered_extent)), np.zeros(covered_extent)
    random = np.random.default_rng(seed)
    for y in range(0, covered_extent[0] - size + 1, stride):
        for x in range(0, covered_extent[1] - size + 1, stride):
            total[:, y : y + size, x : x + size] += weight * random.normal(0, deviation, (2, 1, 1))
            weights[y : y + size, x : x + size] += weight
    return (total / weights)[:, : shape_yx[0], : shape_yx[1]].astype(np.float32)


def score_of(chroma, stride, lightness=None, asked=None):
    shape_yx = chroma.shape[1:]
    lightness = np.full(shape_yx, 50, np.float32) if lightness is None else lightness

    def read(roi):
        if asked is not None:
            asked.append(roi)
        return lightness[roi.rows, roi.columns], chroma[:, roi.rows, roi.columns]

    return seam_score(read, shape_yx, (stride, stride))


@pytest.mark.parametrize("stride", [32, 48, 64])
@pytest.mark.parametrize("seed", range(3))
def test_colours_that_know_of_no_grid_score_1(seed, stride):
    score = score_of(smooth_colours((1000, 1500), seed, grain_px=4), stride)
    assert score.edge == pytest.approx(1, abs=0.03)
    assert 1 <= score.patch < 1.03
    assert score.score == max(score.edge, score.patch)


@pytest.mark.parametrize("stride", [32, 64, 100])
@pytest.mark.parametrize("seed", range(2))
def test_hard_edges_are_seen(seed, stride):
    shape_yx = (700, 1001)
    assert score_of(smooth_colours(shape_yx, seed) + hard_tiles(shape_yx, stride, seed), stride).edge > 2


def test_hard_edges_are_seen_in_one_direction_and_in_one_plane():
    shape_yx = (700, 1001)
    stripes = hard_tiles(shape_yx, 64)[:, :1] * np.ones((1, 700, 1), np.float32)
    stripes[1] = 0
    colours = smooth_colours(shape_yx)
    across = score_of(colours + stripes, 64).edge
    assert across > 1.5
    turned = (colours + stripes).transpose(0, 2, 1).copy()
    assert score_of(turned, 64).edge == pytest.approx(across, rel=1e-6)


def test_the_stronger_the_edges_and_patches_the_higher_the_score():
    shape_yx = (800, 800)
    colours = smooth_colours(shape_yx, deviation=5, grain_px=12)
    hard = [score_of(colours + hard_tiles(shape_yx, 64, deviation=d), 64).edge for d in (0, 0.5, 1, 2, 4)]
    soft = [score_of(colours + soft_tiles(shape_yx, 64, deviation=d), 64).patch for d in (2, 4, 8, 16)]
    assert hard == sorted(hard)
    assert soft == sorted(soft)
    assert hard[-1] > 4 * hard[0]
    assert soft[-1] > 1.2


@pytest.mark.parametrize("stride", [32, 64])
@pytest.mark.parametrize("seed", range(3))
def test_soft_patches_are_seen_as_patches_and_not_as_edges(seed, stride):
    shape_yx = (1000, 900)
    colours = smooth_colours(shape_yx, seed, deviation=5, grain_px=12)
    score = score_of(colours + soft_tiles(shape_yx, stride, seed), stride)
    assert score.patch > 1.05
    assert score.patch > score_of(colours, stride).patch + 0.03
    assert score.edge < 1.03
    assert score.score == score.patch


def test_patches_of_another_stride_do_not_count():
    shape_yx = (1000, 1000)
    colours = smooth_colours(shape_yx, deviation=5, grain_px=12) + soft_tiles(shape_yx, 64, deviation=12)
    assert score_of(colours, 64).patch > 1.1
    assert score_of(colours, 48).patch < 1.03


@pytest.mark.parametrize("make", [hard_tiles, soft_tiles])
def test_texture_in_lightness_does_not_count(make):
    shape_yx = (500, 700)
    chroma = smooth_colours(shape_yx) + make(shape_yx, 64)
    random = np.random.default_rng(3)
    noise = random.uniform(0, 100, shape_yx).astype(np.float32)
    tiles = np.kron(random.uniform(0, 100, (8, 11)), np.ones((64, 64))).astype(np.float32)[:500, :700]
    plain = score_of(chroma, 64)
    for lightness in (noise, tiles):
        found = score_of(chroma, 64, lightness)
        assert (found.edge, found.patch) == pytest.approx((plain.edge, plain.patch), rel=1e-5)


def test_a_gray_picture_scores_1():
    random = np.random.default_rng(3)
    score = score_of(np.zeros((2, 500, 500), np.float32), 64, random.uniform(0, 100, (500, 500)).astype(np.float32))
    assert score == SeamScore(1, 1)
    assert score.score == 1


def test_flat_tiles_side_by_side_are_all_seam():
    assert score_of(hard_tiles((500, 500), 64), 64).score > 100


def test_a_small_picture_has_no_patches_but_may_have_edges():
    score = score_of(smooth_colours((300, 300)) + hard_tiles((300, 300), 64), 64)
    assert np.isnan(score.patch)
    assert score.score == score.edge
    assert score.edge > 2


def test_a_picture_without_a_line_of_the_grid_has_no_score():
    assert np.isnan(score_of(smooth_colours((60, 64)), 64).score)


@pytest.mark.parametrize("shape_yx", [(2600, 400), (400, 2600)])
@pytest.mark.parametrize("make", [hard_tiles, soft_tiles])
def test_windows_give_what_the_whole_gives(monkeypatch, make, shape_yx):
    chroma = smooth_colours(shape_yx, deviation=5, grain_px=12) + make(shape_yx, 96)
    asked = []
    by_windows = score_of(chroma, 96, asked=asked)
    assert max(max(roi.shape_yx) for roi in asked) <= 1024 + module.STRIP_PX
    assert sum(np.prod(roi.shape_yx) for roi in asked) < 1.03 * np.prod(shape_yx)
    monkeypatch.setattr(module, "WINDOW_PX", 4096)
    whole = score_of(chroma, 96)
    assert by_windows.edge == pytest.approx(whole.edge, rel=1e-4)
    assert by_windows.patch == pytest.approx(whole.patch, abs=1e-4)


@pytest.mark.parametrize("make", [hard_tiles, soft_tiles])
@pytest.mark.parametrize("width", [1536, 1500])
def test_of_a_huge_scan_a_sample_is_read_and_scores_the_same(monkeypatch, make, width):
    shape_yx = (1536, width)
    chroma = smooth_colours(shape_yx, deviation=5, grain_px=12) + make(shape_yx, 32)
    monkeypatch.setattr(module, "WINDOW_PX", 256)
    every = score_of(chroma, 32)
    monkeypatch.setattr(module, "FULL_PX", 1536 * width // 3 + 1)
    asked = []
    sampled = score_of(chroma, 32, asked=asked)
    assert sum(np.prod(roi.shape_yx) for roi in asked) < 0.4 * np.prod(shape_yx)
    assert sampled.edge == pytest.approx(every.edge, rel=0.1)
    assert sampled.patch == pytest.approx(every.patch, abs=0.05)


@pytest.mark.parametrize("height", [100, 200])
def test_a_panorama_less_than_two_strides_high_is_scored_along_its_length(height):
    shape_yx = (height, 2048)
    colours = smooth_colours(shape_yx)
    assert score_of(colours, 128).edge == pytest.approx(1, abs=0.25)
    assert 2 < score_of(colours + hard_tiles(shape_yx, 128), 128).edge < 100


def test_a_stride_of_a_window_is_scored():
    shape_yx = (3000, 3000)
    chroma = smooth_colours(shape_yx) + hard_tiles(shape_yx, 1024)
    assert score_of(chroma, 1024).edge > 2
