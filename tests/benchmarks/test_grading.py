"""The benchmarks of graded runs, small: what they count is counted, and comes to nothing where it should."""

import re

import numpy as np
import pytest

from tests.benchmarks import grading, kills


@pytest.mark.e2e
def test_a_small_scan_is_coloured_from_a_copy_and_graded(tmp_path):
    told = "\n".join(grading.measure(tmp_path, 0.6))
    assert "\n0 tiles predicted for the grades." in told
    assert "\n0 bytes of colours beyond the part differ." in told
    assert float(re.search(r"Colourfulness .* for .*: (.*) % away", told)[1]) < 2
    assert told.count("| `") == 6


def test_what_is_half_written_is_seen(tmp_path):
    for name in ("out", "expected"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / "a.color.tif").write_bytes(b"half")
    assert kills.half_written(tmp_path / "out", tmp_path / "expected") == 1


def test_the_copy_has_two_colours_that_change_slowly():
    rgb = grading.tinted(np.full((40, 60), 128, np.uint8)).astype(int)
    assert rgb.shape == (40, 60, 3)
    assert np.abs(np.diff(rgb, axis=1)).max() < 12
    assert (rgb.max((0, 1)) - rgb.min((0, 1))).min() > 10
