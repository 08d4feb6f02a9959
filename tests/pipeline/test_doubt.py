"""How wrong colours probably are: spreads, and what they came to."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.palettes.doubt import Calibration, Doubt, calibrated, doubt_of, spread_of

COLOURS = np.array([[0, 0], [40, 0], [0, 40], [-40, 0]], np.float32)


def _pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Spreads, and errors that scatter around twice as much, the more the larger they are."""
    rng = np.random.default_rng(seed)
    spreads = rng.uniform(1, 10, count)
    return spreads, 2 * spreads * rng.lognormal(0, 0.3, count)


def test_a_sure_cell_has_no_spread_and_an_even_one_the_most() -> None:
    sure, between, even = np.zeros((3, 4, 1, 1), np.float32)
    sure[1], between[:2], even[:] = 1, 0.5, 0.25
    spreads = [float(spread_of(each, COLOURS)[0, 0]) for each in (sure, between, even)]
    assert spreads[0] == pytest.approx(0, abs=1e-3)
    # Of half gray and half 40 away the standard deviation is 20.
    assert spreads[1] == pytest.approx(20, rel=1e-4)
    assert spreads[2] > spreads[1]


def test_nine_tenths_of_further_pictures_lie_within_the_interval() -> None:
    calibration = calibrated(*_pictures(1200, 0))
    spreads, errors = _pictures(4000, 1)
    bounds = map(calibration.interval, spreads)
    inside = [low <= error <= high for error, (low, high) in zip(errors, bounds, strict=True)]
    assert 0.86 < np.mean(inside) < 0.94
    assert np.corrcoef(calibration.expect(spreads), 2 * spreads)[0, 1] > 0.97


def test_what_is_expected_never_falls_with_the_spread() -> None:
    rng = np.random.default_rng(0)
    calibration = calibrated(rng.uniform(0, 1, 300), rng.uniform(0, 1, 300))
    for line in (calibration.spreads, calibration.expected, calibration.low, calibration.high):
        assert list(line) == sorted(line)


def test_too_few_pictures_are_no_calibration() -> None:
    with pytest.raises(ValueError, match="give 120 or more"):
        calibrated(*_pictures(119, 0))


def test_a_scans_doubt_is_a_word_and_survives_its_file() -> None:
    calibration = Calibration((0, 10), (4, 24), (1, 10), (8, 40))
    found = [doubt_of(np.full((3, 3), spread, np.float32), calibration) for spread in (1, 3, 9)]
    assert [each.word for each in found] == ["likely", "unsure", "a guess"]
    assert found[1].expected == pytest.approx(10)
    assert (found[1].low, found[1].high) == (pytest.approx(3.7), pytest.approx(17.6))
    assert Doubt.from_json(json.loads(json.dumps(found[1].to_json()))) == found[1]
