"""The palette network's parts: colours as bins, their loss, what it is shown, and what spoiled palettes are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import deltaE_ciede2000

pytest.importorskip("torch")

import torch

from training.config import Film, Spoiling
from training.data.files import Photograph
from training.data.palettes import spoiled
from training.data.pictures import Sample
from training.difference import chroma_difference
from training.palette.bins import Bins, SoftBins
from training.palette.learn import is_kept
from training.palette.network import PaletteHead
from training.palette.transformer import WIDTH, Stem
from training.palette.views import Views, cell_means


def _colours(count: int, seed: int = 0, spread: float = 25.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, (count, 2)).astype(np.float32)


def test_difference_is_ciede2000_at_equal_lightness() -> None:
    one = _colours(4000)
    other = one + _colours(4000, 1, 12)
    plain = deltaE_ciede2000(*(np.c_[np.full(4000, 50.0), ab] for ab in (one, other)))
    ours = chroma_difference(torch.from_numpy(one), torch.from_numpy(other)).numpy()
    np.testing.assert_allclose(ours, plain, atol=0.02)


def test_difference_can_be_learnt_from_gray_on() -> None:
    colour = torch.zeros(5, 2, requires_grad=True)
    chroma_difference(colour, torch.from_numpy(_colours(5))).sum().backward()
    assert torch.isfinite(colour.grad).all()
    assert (colour.grad.abs().sum(dim=1) > 0).all()


@given(st.integers(0, 10_000))
def test_the_mean_of_a_colours_shares_is_the_colour(seed: int) -> None:
    colours = _colours(64, seed, 20).clip(-60, 60)
    soft = SoftBins(Bins.of(np.concatenate([colours, _colours(5000, seed + 1)])))
    shares = soft.shares(torch.from_numpy(colours))
    mean = sum(share[:, None] * soft.centres[nodes] for nodes, share in shares)
    assert torch.stack([share for _, share in shares]).sum(dim=0).allclose(torch.ones(64), atol=1e-5)
    # All corners of most colours are in use; of some a rare one is not, and its neighbour stands for it.
    assert np.abs(mean.numpy() - colours).max(axis=1).mean() < 0.7


def test_cross_entropy_is_least_for_the_right_colour_and_weighs_rare_ones_more() -> None:
    common, rare = np.zeros((3000, 2), np.float32), np.tile(np.float32([[42, 42]]), (40, 1))
    bins = Bins.of(np.concatenate([common, rare]))
    soft = SoftBins(bins)
    right = torch.full((1, len(bins.centres)), -8.0)
    right[0, np.argmin(np.abs(bins.centres - [42, 42]).sum(axis=1))] = 8.0
    assert soft.cross_entropy(right, torch.tensor([[42.0, 42.0]])) < 0.01
    assert soft.cross_entropy(right, torch.tensor([[0.0, 0.0]])) > 8
    weights = {tuple(c): w for c, w in zip(bins.centres.tolist(), bins.weights.tolist(), strict=True)}
    assert weights[42.0, 42.0] > 1.5 * weights[0.0, 0.0]


def test_a_view_is_the_same_each_time_and_its_truth_is_the_mean_of_each_cell() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    views = Views(cells=4, film=Film(gamma=0.3, grain=0.05))
    for number in range(4):
        (gray, truth), (again, _) = (views.view(Sample(rgb, "rgb"), 7, number) for _ in range(2))
        assert np.array_equal(gray, again)
        assert gray.shape == (56, 56)
        assert truth.shape == (2, 4, 4)
        assert gray.min() >= 0
        assert gray.max() <= 1
    plain = np.arange(2 * 8 * 8, dtype=np.float32).reshape(2, 8, 8)
    np.testing.assert_allclose(cell_means(plain, 2), plain.reshape(2, 2, 4, 2, 4).mean(axis=(2, 4)))


def test_a_mirrored_view_has_the_mirrored_truth() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    views = Views(cells=4, film=Film())
    (gray, truth), (mirrored, other) = (views.view(Sample(rgb, "rgb"), 0, number) for number in (0, 1))
    np.testing.assert_allclose(gray[:, ::-1], mirrored, atol=1e-5)
    np.testing.assert_allclose(truth[:, :, ::-1], other, atol=1e-3)


def test_stem_and_head_give_a_number_for_each_colour_of_each_cell() -> None:
    stem, head = Stem(1, 3), PaletteHead(11, 3, trained=1)
    tokens = stem(torch.rand(2, 1, 42, 42))
    assert tokens.shape == (2, 10, WIDTH)
    assert head(tokens).shape == (2, 11, 3, 3)


@pytest.mark.parametrize(
    ("licence", "free"),
    [("CC0-1.0", True), ("public domain", True), ("research: mixed Flickr", False), ("", False), ("unknown", False)],
)
def test_free_pictures_are_those_whose_licence_says_so(licence: str, free: bool) -> None:
    assert Photograph(path=None, group="g", licence=licence).is_free is free  # type: ignore[arg-type]


def test_a_twelfth_is_kept_by_photograph() -> None:
    kept = sum(is_kept(Photograph(path=None, group=f"g{i}")) for i in range(6000))  # type: ignore[arg-type]
    assert 400 < kept < 600


WHOLE = (0.0, 0.0, 1.0, 1.0)
CLEAN = Spoiling(unspoiled=1.0, least_cells=8, most_cells=8)


def test_an_unspoiled_palette_is_the_mean_of_each_cell_and_asks_for_nothing() -> None:
    chroma = np.random.default_rng(0).normal(0, 20, (2, 64, 64)).astype(np.float32)
    made = spoiled(chroma, WHOLE, (64, 64), CLEAN, np.random.default_rng(0))
    middles = made.palette[:, 4::8, 4::8] / 2 + made.palette[:, 3::8, 3::8] / 2
    assert np.abs(middles - cell_means(chroma, 8)).mean() < 0.6
    assert made.gain == 1
    assert not made.tint.any()


def test_a_crop_sees_its_part_of_the_pictures_palette() -> None:
    chroma = np.random.default_rng(0).normal(0, 20, (2, 64, 64)).astype(np.float32)
    whole = spoiled(chroma, WHOLE, (64, 64), CLEAN, np.random.default_rng(0)).palette
    part = spoiled(chroma, (0.25, 0.5, 0.25, 0.25), (16, 16), CLEAN, np.random.default_rng(0)).palette
    np.testing.assert_allclose(part, whole[:, 16:32, 32:48], atol=1e-4)


def test_a_faded_palette_fades_the_truth_with_it_and_noise_leaves_the_truth() -> None:
    chroma = np.full((2, 32, 32), 30, np.float32)
    faded = Spoiling(unspoiled=0, fade=0.9, tint=0, noise=0, blur_cells=0, shift_cells=0)
    made = spoiled(chroma, WHOLE, (32, 32), faded, np.random.default_rng(2))
    np.testing.assert_allclose(made.palette, 30 * made.gain, rtol=1e-4)
    assert made.gain != 1
    noisy = Spoiling(unspoiled=0, fade=0, tint=0, noise=9, blur_cells=0, shift_cells=0)
    made = spoiled(chroma, WHOLE, (32, 32), noisy, np.random.default_rng(3))
    assert made.palette.std() > 0.5
    assert made.gain == 1
    assert not made.tint.any()
