"""What is taken of a distribution over colours: means, sharper means, the next best answers, and caution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.palettes.answers import annealed, answers_of, next_best, sureness
from pipeline.palettes.doubt import GUESS_FROM, LIKELY_BELOW, spread_of
from pipeline.tiling.palette import mean_ab

GRID = np.array([(a, b) for a in range(-42, 43, 14) for b in range(-42, 43, 14)], np.float32)


def _distribution(seed: int) -> np.ndarray:
    shares = np.random.default_rng(seed).gamma(0.3, size=(len(GRID), 3, 4)) + 1e-4
    return (shares / shares.sum(axis=0)).astype(np.float32)


@given(st.integers(0, 20), st.floats(0, 1))
def test_sharper_distributions_still_sum_to_one_and_keep_their_likeliest(seed: int, vivid: float) -> None:
    distribution = _distribution(seed)
    sharp = annealed(distribution, vivid)
    np.testing.assert_allclose(sharp.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(sharp.argmax(axis=0), distribution.argmax(axis=0))
    assert (sharp.max(axis=0) >= distribution.max(axis=0) - 1e-6).all()


def test_vivid_is_the_published_annealed_mean() -> None:
    """Zhang, Isola, Efros 2016, equation 5, with their temperature of 0.38."""
    distribution = _distribution(1)
    logs = np.exp(np.log(distribution.astype(np.float64)) / 0.38)
    np.testing.assert_allclose(annealed(distribution, 0.62), logs / logs.sum(axis=0), rtol=1e-4, atol=1e-6)


def test_the_mean_stays_and_the_likeliest_stands_at_the_ends() -> None:
    distribution = _distribution(2)
    assert annealed(distribution, 0) is distribution
    likeliest = GRID[distribution.argmax(axis=0)].transpose(2, 0, 1)
    clear = distribution.max(axis=0) > 1.3 * np.sort(distribution, axis=0)[-2]
    assert clear.any()
    found = mean_ab(annealed(distribution, 1), GRID)
    np.testing.assert_allclose(found[:, clear], likeliest[:, clear], atol=0.5)


def test_brown_or_green_are_two_answers_and_their_mean_is_neither() -> None:
    distribution = np.full((len(GRID), 1, 2), 1e-5, np.float32)
    places = [(colour == GRID).all(axis=1).argmax() for colour in ((14, 28), (28, 28), (-28, 14))]
    brown, beside, green = map(int, places)
    distribution[brown], distribution[beside], distribution[green] = 0.35, 0.25, 0.4
    distribution /= distribution.sum(axis=0)
    first, second, third = answers_of(distribution, GRID)[..., 0, 0]
    np.testing.assert_allclose(first, [14 + 14 * 25 / 60, 28, 0.6], atol=0.02)
    np.testing.assert_allclose(second, [-28, 14, 0.4], atol=0.02)
    assert third[2] < 0.01


@given(st.integers(0, 20))
def test_answers_come_best_first_and_share_what_there_is(seed: int) -> None:
    answers = answers_of(_distribution(seed), GRID, 3)
    assert answers.shape == (3, 3, 3, 4)
    shares = answers[:, 2]
    assert (np.diff(shares, axis=0) <= 1e-6).all()
    assert (shares >= 0).all()
    assert (shares.sum(axis=0) <= 1 + 1e-5).all()
    many = answers_of(_distribution(seed), GRID, len(GRID))
    np.testing.assert_allclose(many[:, 2].sum(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose((many[:, :2] * many[:, 2:]).sum(axis=0), mean_ab(_distribution(seed), GRID), atol=1e-2)


def test_the_next_best_colour_is_taken_where_it_is_as_good_and_not_where_one_is_sure() -> None:
    distribution = np.full((len(GRID), 9, 12), 1e-6, np.float32)
    brown, green = (int((colour == GRID).all(axis=1).argmax()) for colour in ((14, 28), (-28, 14)))
    distribution[brown, :, :6] = 0.99  # sure
    distribution[brown, :, 6:], distribution[green, :, 6:] = 0.55, 0.44
    distribution /= distribution.sum(axis=0)
    mean = mean_ab(distribution, GRID)
    made = next_best(distribution, GRID, mean, 2)
    np.testing.assert_allclose(made[:, 4, 0], [14, 28], atol=0.2)
    np.testing.assert_allclose(made[:, 4, 11], [-28, 14], atol=0.2)
    np.testing.assert_allclose(mean[:, 4, 11], [-4.6, 21.8], atol=0.2)
    # It fades from one to the other, and a third answer, which there is not, leaves the mean.
    assert (np.diff(made[0, 4]) < 1e-3).all()
    np.testing.assert_allclose(next_best(distribution, GRID, mean, 3)[:, 4, 11], mean[:, 4, 11], atol=0.2)


def test_noise_in_which_of_two_is_better_does_not_show_in_the_next_best() -> None:
    rng = np.random.default_rng(4)
    distribution = np.full((len(GRID), 16, 20), 1e-6, np.float32)
    brown, green = (int((colour == GRID).all(axis=1).argmax()) for colour in ((14, 28), (-28, 14)))
    distribution[brown] = 0.53 + rng.normal(0, 0.03, (16, 20))
    distribution[green] = 1 - distribution[brown]
    distribution /= distribution.sum(axis=0)
    alone = answers_of(distribution, GRID)[1, 0]
    assert (np.abs(np.diff(alone, axis=1)) > 20).any(), "cell by cell it would be patchy"
    made = next_best(distribution, GRID, mean_ab(distribution, GRID), 2)
    assert (np.abs(np.diff(made[0], axis=1)) > 20).mean() < 0.2 * (np.abs(np.diff(alone, axis=1)) > 20).mean()


@given(st.integers(0, 20), st.sampled_from([2, 3]))
def test_the_next_best_lies_between_colours_that_there_are(seed: int, answer: int) -> None:
    distribution = _distribution(seed)
    made = next_best(distribution, GRID, mean_ab(distribution, GRID), answer)
    assert made.shape == (2, 3, 4)
    assert made.dtype == np.float32
    assert (np.abs(made) <= 42.01).all()


def test_caution_leaves_what_is_likely_and_takes_the_colour_of_a_guess() -> None:
    kept = sureness(np.array([0, LIKELY_BELOW, (LIKELY_BELOW + GUESS_FROM) / 2, GUESS_FROM, 40], np.float32))
    assert kept.tolist() == pytest.approx([1, 1, 0.5, 0, 0])


def test_what_is_possible_spreads_more_around_anything_but_the_mean() -> None:
    distribution = _distribution(3)
    mean = mean_ab(distribution, GRID)
    around_mean = spread_of(distribution, GRID)
    np.testing.assert_allclose(spread_of(distribution, GRID, mean), around_mean, rtol=1e-5)
    assert (spread_of(distribution, GRID, mean + 9) > around_mean).all()
