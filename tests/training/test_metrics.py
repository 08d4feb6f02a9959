from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("skimage")
from scipy import linalg

from pipeline.colour.colourfulness import colourfulness
from pipeline.colour.lab import lab_from_rgb, rgb_from_lab
from training.evaluation.frechet import LEAST_PICTURES, Distances, Moments, frechet_distance
from training.metrics import bootstrap_interval, bootstrap_weights, ciede2000, mse, psnr, ssim

RANDOM = np.random.default_rng(0).random((16, 24, 3)).astype(np.float32)


def _flat(lightness: float, a: float, b: float) -> np.ndarray:
    chroma = np.array([a, b], np.float32)[:, None, None] * np.ones((1, 8, 8), np.float32)
    return rgb_from_lab(np.full((8, 8), lightness, np.float32), chroma)


def test_equal_pictures() -> None:
    assert ciede2000(RANDOM, RANDOM) == 0
    assert mse(RANDOM, RANDOM) == 0
    assert psnr(RANDOM, RANDOM) == math.inf
    assert ssim(RANDOM, RANDOM) == pytest.approx(1)


# Sharma, Wu, Dalal 2005, table 1: L*, a*, b* of both and CIEDE2000. Of the 34 pairs, those that lie in sRGB and
# do not hang on the fourth digit of a hue (7 to 16), which pictures in float32 RGB cannot hold.
PUBLISHED = [
    ((50, 2.5, 0), (50, 3.1736, 0.5854), 1.0),
    ((50, 2.5, 0), (50, 3.2972, 0), 1.0),
    ((50, 2.5, 0), (50, 1.8634, 0.5757), 1.0),
    ((50, 2.5, 0), (50, 3.2592, 0.3350), 1.0),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (61, -5, 29), 22.8977),
    ((50, 2.5, 0), (58, 24, 15), 19.4535),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((63.0109, -31.0961, -5.8663), (62.8187, -29.7946, -4.0864), 1.2630),
    ((61.2901, 3.7196, -5.3901), (61.4292, 2.2480, -4.9620), 1.8731),
    ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
    ((90.9257, -0.5406, -0.9208), (88.6381, -0.8985, -0.7239), 1.5381),
    ((6.7747, -0.2908, -2.4247), (5.8714, -0.0985, -2.2286), 0.6377),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("one", "other", "published"), PUBLISHED)
def test_ciede2000_of_published_pairs(
    one: tuple[float, float, float], other: tuple[float, float, float], published: float
) -> None:
    for lab in (one, other):  # a colour outside the gamut would be another colour
        np.testing.assert_allclose(lab_from_rgb(_flat(*lab))[:, 0, 0], lab, atol=0.02)
    assert ciede2000(_flat(*one), _flat(*other)) == pytest.approx(published, abs=0.005)


def test_mse_and_psnr_of_a_known_error() -> None:
    zero, tenth = np.zeros((8, 8, 3)), np.full((8, 8, 3), 0.1)
    assert mse(tenth, zero) == pytest.approx(0.01)
    assert psnr(tenth, zero) == pytest.approx(20)


def test_ssim_falls_with_noise() -> None:
    smooth = np.tile(np.linspace(0, 1, 24)[None, :, None], (16, 1, 3))
    noise = np.random.default_rng(1).normal(0, 1, smooth.shape)
    assert 1 > ssim(smooth + 0.02 * noise, smooth) > ssim(smooth + 0.2 * noise, smooth)


def test_colourfulness_of_known_pictures() -> None:
    assert colourfulness(_flat(60, 0, 0)) == pytest.approx(0, abs=1e-3)
    red = np.zeros((4, 4, 3))
    red[..., 0] = 1  # no spread; means 255 and 127.5
    assert colourfulness(red) == pytest.approx(0.3 * math.hypot(255, 127.5))
    half = red.copy()
    half[:2] = 0  # spreads 127.5 and 63.75; means the same
    assert colourfulness(half) == pytest.approx(1.3 * math.hypot(127.5, 63.75))


def test_bootstrap_interval_is_seeded_and_holds_the_mean() -> None:
    values = np.random.default_rng(2).normal(10, 2, 400)
    weights = bootstrap_weights(range(400))
    low, high = bootstrap_interval(values, weights)
    assert (low, high) == bootstrap_interval(values, bootstrap_weights(range(400)))
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / math.sqrt(400), rel=0.15)


def test_bootstrap_draws_groups_whole() -> None:
    values = np.repeat(np.random.default_rng(3).normal(10, 2, 100), 4)
    groups = [str(i // 4) for i in range(400)]
    weights = bootstrap_weights(groups)
    assert (weights.sum(axis=1) == 400).all()
    assert (weights.reshape(-1, 100, 4) == weights.reshape(-1, 100, 4)[..., :1]).all()
    alone, grouped = bootstrap_interval(values, bootstrap_weights(range(400))), bootstrap_interval(values, weights)
    assert (grouped[1] - grouped[0]) == pytest.approx(2 * (alone[1] - alone[0]), rel=0.15)


def test_bootstrap_intervals_cover_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(4)
    weights = bootstrap_weights(range(60), draws=500)
    covered = 0
    for _ in range(400):
        low, high = bootstrap_interval(rng.gamma(4, 1, 60), weights)  # skewed, as errors are; its mean is 4
        covered += low <= 4 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_bootstrap_of_a_ratio_is_paired() -> None:
    rng = np.random.default_rng(5)
    truth = rng.uniform(1, 50, 200)
    weights = bootstrap_weights(range(200))
    assert bootstrap_interval(0.5 * truth, weights, over=truth) == pytest.approx((0.5, 0.5))
    low, high = bootstrap_interval(0.5 * truth + rng.normal(0, 1, 200), weights, over=truth)
    assert low < 0.5 < high
    assert high - low < 0.03


def test_bootstrap_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        bootstrap_weights([])


def _moments(vectors: np.ndarray) -> Moments:
    moments = Moments()
    for vector in vectors:
        moments.add(vector)
    return moments


def _correlated(seed: int, count: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, (count, size)) @ rng.normal(0, 1, (size, size)) + rng.normal(0, 1, size)


def test_moments_are_those_of_all_vectors_together() -> None:
    vectors = _correlated(6, 50, 8) + 1e7  # squares of 1e14: a sum of them has no digits left for the variance
    moments = _moments(vectors)
    np.testing.assert_allclose(moments.mean, vectors.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(vectors.T), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="needs two"):
        _ = _moments(vectors[:1]).covariance


def test_frechet_distance_of_single_features_is_that_of_means_and_deviations() -> None:
    one, other = np.random.default_rng(7).normal([[0], [3]], [[1], [2.5]], (2, 100))
    expected = (one.mean() - other.mean()) ** 2 + (one.std(ddof=1) - other.std(ddof=1)) ** 2
    assert frechet_distance(_moments(one[:, None]), _moments(other[:, None])) == pytest.approx(expected)


def test_frechet_distance_is_the_published_formula() -> None:
    one, other = _correlated(8, 80, 12), _correlated(9, 60, 12)
    c1, c2 = np.cov(one.T), np.cov(other.T)
    root = linalg.sqrtm(c1 @ c2).real
    expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(c1 + c2 - 2 * root)
    found = frechet_distance(_moments(one), _moments(other))
    assert found == pytest.approx(expected, rel=1e-8)
    assert found == pytest.approx(frechet_distance(_moments(other), _moments(one)), rel=1e-12)


def test_frechet_distance_stands_where_a_feature_never_changes() -> None:
    one = _correlated(10, 30, 6)
    one[:, 2:4] = 0.7, -1
    assert frechet_distance(_moments(one), _moments(one[::-1])) == pytest.approx(0, abs=1e-9)
    other = one + 0.5  # the same spread about other means
    assert frechet_distance(_moments(one), _moments(other)) == pytest.approx(6 * 0.25, rel=1e-6)


def test_frechet_distances_to_the_truth_by_name_from_enough_pictures() -> None:
    truth = _correlated(11, LEAST_PICTURES, 4)
    distances = Distances()
    for vector in truth[:-1]:
        distances.add(vector, {"near": vector + 0.1, "far": vector + 2})
    assert distances.to_truth() == {}
    distances.add(truth[-1], {"near": truth[-1] + 0.1, "far": truth[-1] + 2})
    variance = truth.var(axis=0, ddof=1).sum()
    assert distances.to_truth() == pytest.approx({"near": 4 * 0.01 / variance, "far": 4 * 4.0 / variance}, rel=1e-6)


def test_frechet_distances_to_one_picture_many_times_over_are_none() -> None:
    distances = Distances()
    for _ in range(LEAST_PICTURES):
        distances.add([0.1, 0.2], {"near": [0.1, 0.3]})
    assert distances.to_truth() == {}
