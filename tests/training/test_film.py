"""Old film: each effect does what its recipe says of it, and none is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("yaml")

from training.config import Film
from training.data import age

_SHARES = st.floats(0, 1)


def _texture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (64, 64)).astype(np.float32)


def test_no_film_is_the_input_itself() -> None:
    lightness = _texture()
    assert age(lightness, Film(), np.random.default_rng(0)) is lightness


@given(gamma=_SHARES, fade=_SHARES, grain=_SHARES, blur_px=st.floats(0, 16), seed=st.integers(0, 99))
def test_any_film_stays_in_range_and_leaves_the_input_alone(
    gamma: float, fade: float, grain: float, blur_px: float, seed: int
) -> None:
    lightness = _texture()
    film = Film(gamma=gamma, fade=fade, grain=grain, blur_px=blur_px)
    aged, again = (age(lightness, film, np.random.default_rng(seed)) for _ in range(2))
    assert aged.dtype == np.float32
    assert aged.shape == lightness.shape
    assert 0 <= aged.min() <= aged.max() <= 1
    np.testing.assert_array_equal(aged, again)
    np.testing.assert_array_equal(lightness, _texture())


def test_gamma_bends_the_middle_and_keeps_the_ends() -> None:
    ramp = np.linspace(0, 1, 65, dtype=np.float32)[None]
    middles = []
    for seed in range(20):
        aged = age(ramp, Film(gamma=0.5), np.random.default_rng(seed))
        assert (aged[0, 0], aged[0, -1]) == (0, 1)
        assert (np.diff(aged[0]) > 0).all()
        middles.append(aged[0, 32])
    assert 0.5 ** np.exp(0.5) <= min(middles) < 0.45
    assert 0.55 < max(middles) <= 0.5 ** np.exp(-0.5)


def test_fade_lifts_blacks_and_lowers_whites() -> None:
    ramp = np.linspace(0, 1, 65, dtype=np.float32)[None]
    aged = np.stack([age(ramp, Film(fade=0.2), np.random.default_rng(seed))[0] for seed in range(20)])
    assert (aged[:, 0] > 0).all()
    assert (aged[:, -1] < 1).all()
    assert 0.1 < aged[:, 0].max() <= 0.2
    assert 0.8 <= aged[:, -1].min() < 0.9


def test_blur_takes_fine_detail_and_leaves_the_mean() -> None:
    lightness = _texture()
    left = []
    for seed in range(20):
        aged = age(lightness, Film(blur_px=3), np.random.default_rng(seed))
        energy, before = (np.abs(np.fft.fft2(plane))[16:48, 16:48].sum() for plane in (aged, lightness))
        left.append(energy / before)
        assert aged.mean() == pytest.approx(lightness.mean(), abs=0.01)
    assert max(left) < 1
    assert sorted(left)[10] < 0.1


def test_grain_has_the_contrast_asked_for_at_any_coarseness() -> None:
    flat = np.full((128, 128), 0.5, np.float32)
    made = [age(flat, Film(grain=0.08), np.random.default_rng(seed)) - 0.5 for seed in range(60)]
    contrasts = np.array([plane.std() for plane in made])
    assert contrasts.max() <= 0.081
    assert contrasts.mean() == pytest.approx(0.04, abs=0.01)  # drawn evenly from 0 to 0.08
    likeness = [np.corrcoef(plane[:, 1:].ravel(), plane[:, :-1].ravel())[0, 1] for plane in made]
    assert min(likeness) < 0.3  # as fine as the pixels
    assert max(likeness) > 0.7  # about three pixels wide
