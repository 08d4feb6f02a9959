from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("skimage")

from pipeline.color import rgb_from_lab
from training.metrics import bootstrap_interval, ciede2000, colourfulness, mse, psnr, ssim

RANDOM = np.random.default_rng(0).random((16, 24, 3)).astype(np.float32)


def _flat(lightness: float, a: float, b: float) -> np.ndarray:
    chroma = np.array([a, b], np.float32)[:, None, None] * np.ones((1, 8, 8), np.float32)
    return rgb_from_lab(np.full((8, 8), lightness, np.float32), chroma)


def test_equal_pictures() -> None:
    assert ciede2000(RANDOM, RANDOM) == 0
    assert mse(RANDOM, RANDOM) == 0
    assert psnr(RANDOM, RANDOM) == math.inf
    assert ssim(RANDOM, RANDOM) == pytest.approx(1)


def test_ciede2000_of_a_published_pair() -> None:
    # Sharma, Wu, Dalal 2005, table 1, pair 17, and pair 20's first colour against itself.
    assert ciede2000(_flat(50, 2.5, 0), _flat(50, 3.2592, 0.3350)) == pytest.approx(1.0, abs=0.01)
    assert ciede2000(_flat(50, 2.5, 0), _flat(50, 2.5, 0)) == pytest.approx(0, abs=1e-3)


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
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / math.sqrt(400), rel=0.15)


def test_bootstrap_draws_groups_whole() -> None:
    values = np.repeat(np.random.default_rng(3).normal(10, 2, 100), 4)
    groups = [str(i // 4) for i in range(400)]
    alone, grouped = bootstrap_interval(values), bootstrap_interval(values, groups)
    assert (grouped[1] - grouped[0]) == pytest.approx(2 * (alone[1] - alone[0]), rel=0.15)


def test_bootstrap_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([])
