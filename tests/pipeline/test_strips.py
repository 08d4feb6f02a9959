"""Strips change nothing but the memory that is needed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.support import row_bands
from pipeline.support.row_bands import by_strips, row_strips


@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 300))
def test_strips_cover_every_row_once(height, width, pixels):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_bands, "STRIP_PX", pixels)
        rows = [np.arange(height)[strip] for strip in row_strips((height, width))]
    assert np.concatenate([np.arange(0), *rows]).tolist() == list(range(height))
    assert all(len(strip) * width <= max(pixels, width) for strip in rows)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (300, 1000, 3), (3, 100_000, 4)])
@pytest.mark.parametrize(
    "convert",
    [lambda s: s[:, :, 0], lambda s: s.astype(np.float64).mean(axis=2), lambda s: 255 - s, lambda s: s[:, :, ::-1]],
)
def test_it_is_what_the_function_gives_for_all(shape, convert):
    samples = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    expected, found = convert(samples), by_strips(convert, samples)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype
    assert np.may_share_memory(found, samples) == np.may_share_memory(expected, samples)


def test_what_is_needed_beside_the_result_is_small():
    samples = np.zeros((2048, 2048, 3), np.uint8)
    tracemalloc.start()
    by_strips(lambda part: np.rint(part.astype(np.float64).mean(axis=2)).astype(np.uint8), samples)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2048 * 2048 + 8 * 2**20
