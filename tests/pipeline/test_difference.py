"""Two versions of one scan: against scikit-image on whole arrays, and against Sharma's published differences."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import deltaE_ciede2000

from pipeline.errors import StoreError, UsageError
from pipeline.quality.difference import QUANTILE_STEP, difference, difference_map
from pipeline.types import Roi
from tests.strategies import examples

# a1*, b1*, a2*, b2*, CIEDE2000: the pairs of equal L* (50) in table 1 of Sharma, Wu, Dalal (2005).
SHARMA = np.array(
    [
        (2.6772, -79.7751, 0, -82.7485, 2.0425),
        (3.1571, -77.2803, 0, -82.7485, 2.8615),
        (2.8361, -74.0200, 0, -82.7485, 3.4412),
        (-1.3802, -84.2814, 0, -82.7485, 1.0000),
        (-1.1848, -84.8006, 0, -82.7485, 1.0000),
        (-0.9009, -85.5211, 0, -82.7485, 1.0000),
        (0, 0, -1, 2, 2.3669),
        (-1, 2, 0, 0, 2.3669),
        (2.4900, -0.0010, -2.4900, 0.0009, 7.1792),
        (2.4900, -0.0010, -2.4900, 0.0010, 7.1792),
        (2.4900, -0.0010, -2.4900, 0.0011, 7.2195),
        (2.4900, -0.0010, -2.4900, 0.0012, 7.2195),
        (-0.0010, 2.4900, 0.0009, -2.4900, 4.8045),
        (-0.0010, 2.4900, 0.0010, -2.4900, 4.8045),
        (-0.0010, 2.4900, 0.0011, -2.4900, 4.7461),
        (2.5, 0, 0, -2.5, 4.3065),
        (2.5, 0, 3.1736, 0.5854, 1.0000),
        (2.5, 0, 3.2972, 0, 1.0000),
        (2.5, 0, 1.8634, 0.5757, 1.0000),
        (2.5, 0, 3.2592, 0.3350, 1.0000),
    ]
)


def reader(array):
    return lambda roi: array[..., roi.rows, roi.columns]


def compare(lightness, old, new, **options):
    return difference(lightness.shape, *map(reader, (old, new)), **options)


def versions(shape_yx, seed=0):
    """L*, and the chroma of two versions that differ from hardly to very much, smoothly over the scan."""
    random = np.random.default_rng(seed)
    lightness = random.uniform(0, 100, shape_yx).astype(np.float32)
    old = random.normal(0, 15, (2, *shape_yx)).astype(np.float32)
    amount = np.linspace(0, 12, shape_yx[1], dtype=np.float32)
    return lightness, old, old + amount * random.normal(0, 1, old.shape).astype(np.float32)


def reference(lightness, old, new):
    pair = (np.concatenate([lightness[None], chroma]).astype(np.float64) for chroma in (old, new))
    return deltaE_ciede2000(*pair, channel_axis=0)


def test_agrees_with_scikit_image_on_whole_arrays():
    parts = versions((301, 457))
    found, expected = compare(*parts, window_px=100), reference(*parts)
    assert (found.shape_yx, found.pixels, found.step_px) == ((301, 457), expected.size, 1)
    assert found.mean == pytest.approx(expected.mean(), rel=1e-5)
    assert found.max == pytest.approx(expected.max(), abs=1e-3)
    for quantile, share in ((found.median, 0.5), (found.p95, 0.95), (found.p99, 0.99)):
        exact = np.quantile(expected, share, method="inverted_cdf")
        assert quantile == pytest.approx(exact, abs=QUANTILE_STEP / 2 + 1e-3)
    assert found.share_above_1 == pytest.approx((expected > 1).mean(), abs=1e-4)
    assert found.share_above_5 == pytest.approx((expected > 5).mean(), abs=1e-4)
    assert found.chroma_old == pytest.approx(np.hypot(*parts[1]).mean(), rel=1e-5)
    assert found.chroma_new == pytest.approx(np.hypot(*parts[2]).mean(), rel=1e-5)
    assert found.cell_px == 1
    np.testing.assert_allclose(found.map_yx, expected, atol=1e-3)


def test_agrees_with_published_differences():
    chroma = SHARMA[:, :4].T.reshape(2, 2, 1, -1)
    found = compare(np.full((1, len(SHARMA)), 50.0), chroma[0], chroma[1])
    np.testing.assert_allclose(found.map_yx[0], SHARMA[:, 4], atol=1.5e-4)


def test_identical_versions_have_no_difference():
    lightness, old, _ = versions((70, 301))
    found = compare(lightness, old, old)
    assert (found.mean, found.median, found.p95, found.p99, found.max) == (0, 0, 0, 0, 0)
    assert (found.share_above_1, found.share_above_5, found.worst) == (0, 0, ())
    assert not found.map_yx.any()
    assert found.chroma_old == found.chroma_new > 0


def test_differences_beyond_the_histogram_keep_their_maximum():
    old, new = np.zeros((2, 2, 8, 8), np.float32)
    old[0], new[0] = 128, -128
    found = compare(np.full((8, 8), 50, np.float32), old, new)
    assert found.max == pytest.approx(reference(np.full((8, 8), 50), old, new).max(), rel=1e-5)
    assert found.max > 100
    assert found.median == 100


@examples(40)
@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    window_px=st.integers(1, 90),
    full_px=st.sampled_from([1, 7, 100, 1500, 10_000]),
)
def test_window_size_does_not_matter(height, width, window_px, full_px):
    parts = versions((height, width))
    found = compare(*parts, window_px=window_px, full_px=full_px)
    whole = compare(*parts, full_px=full_px)
    np.testing.assert_allclose(found.map_yx, whole.map_yx, rtol=1e-6)
    assert [w.roi for w in found.worst] == [w.roi for w in whole.worst]
    assert found.mean == pytest.approx(whole.mean)
    for name in ("pixels", "step_px", "median", "p95", "p99", "max", "share_above_1", "share_above_5", "cell_px"):
        assert getattr(found, name) == getattr(whole, name)


def test_one_changed_patch_is_found():
    height, width = 700, 2500
    lightness, old = np.full((height, width), 60, np.float32), np.full((2, height, width), 5, np.float32)
    new = old.copy()
    new[:, 300:309, 1200:1206] += 20
    found = compare(lightness, old, new)
    assert found.cell_px == 3
    assert found.map_yx.shape == (234, 834)
    rows, columns = np.nonzero(found.map_yx)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (100, 102, 400, 401)
    [worst] = found.worst
    assert worst.roi == Roi(256, 512, 1024, 1280)
    assert worst.mean == pytest.approx(found.mean * height * width / 256**2)
    assert found.map_yx.max() == pytest.approx(found.max, rel=1e-5)


def test_worst_windows_are_five_in_order():
    lightness, old = np.full((600, 2000), 60, np.float32), np.zeros((2, 600, 2000), np.float32)
    new = old.copy()
    for column in range(7):
        new[0, :256, 256 * column : 256 * (column + 1)] = column
    found = compare(lightness, old, new)
    assert [w.roi.x0 // 256 for w in found.worst] == [6, 5, 4, 3, 2]
    assert [w.mean for w in found.worst] == sorted((w.mean for w in found.worst), reverse=True)


def test_a_sliver_at_the_edge_does_not_hide_a_window():
    lightness, old = np.full((256, 258), 60, np.float32), np.zeros((2, 256, 258), np.float32)
    new = old.copy()
    new[0, :, :256], new[0, :, 256:] = 5, 20
    assert compare(lightness, old, new).worst[0].roi == Roi(0, 256, 0, 256)


def test_subsample_is_announced_and_near_the_full_figure():
    parts = versions((900, 1100))
    full, sampled = compare(*parts), compare(*parts, full_px=120_000)
    assert full.step_px == 1
    assert sampled.step_px == 3
    assert sampled.pixels == 300 * 367 <= 120_000
    picked = [part[..., ::3, ::3] for part in parts]
    assert sampled.mean == pytest.approx(reference(*picked).mean(), rel=1e-5)
    for name in ("mean", "median", "p95", "p99", "share_above_1", "share_above_5", "chroma_old", "chroma_new"):
        assert getattr(sampled, name) == pytest.approx(getattr(full, name), rel=0.02)
    assert sampled.cell_px % sampled.step_px == 0


def test_subsample_covers_every_cell_of_the_map():
    lightness, old = np.full((50, 4099), 60, np.float32), np.zeros((2, 50, 4099), np.float32)
    found = compare(lightness, old, old + 10, full_px=9000)
    assert found.step_px > 1
    assert max(found.map_yx.shape) <= 1024
    np.testing.assert_allclose(found.map_yx, found.max, rtol=1e-5)


@pytest.mark.parametrize("shape_yx", [(1, 1), (1, 300), (257, 3), (1025, 1)])
def test_odd_sizes(shape_yx):
    parts = versions(shape_yx)
    found, expected = compare(*parts, window_px=64), reference(*parts)
    assert found.mean == pytest.approx(expected.mean(), rel=1e-4, abs=1e-5)
    assert found.map_yx.shape == tuple(-(-extent // found.cell_px) for extent in shape_yx)
    assert all(window.roi == window.roi.clipped(shape_yx) for window in found.worst)
    assert difference_map(found).dtype == np.uint8


def test_windows_are_bounded_whatever_the_scan():
    asked = []

    def flat(roi):
        asked.append(roi.shape_yx)
        return np.zeros((2, *roi.shape_yx), np.float16)

    found = difference((5000, 9000), flat, flat, full_px=50_000, window_px=512)
    assert max(h * w for h, w in asked) == 512 * 512
    assert sum(h * w for h, w in asked) == 2 * 5000 * 9000
    assert found.map_yx.size <= 1024**2


def test_json_has_all_but_the_map():
    found = compare(*versions((300, 400)))
    told = json.loads(json.dumps(found.to_json()))
    assert told["shape_yx"] == [300, 400]
    assert (told["pixels"], told["step_px"]) == (120_000, 1)
    assert told["ciede2000"]["mean"] == pytest.approx(found.mean, abs=1e-4)
    assert told["worst"][0]["window_yyxx"] == [0, 256, 256, 400]
    assert "map_yx" not in told


def test_map_has_a_fixed_scale_and_a_legend():
    lightness, old = np.full((1024, 1024), 60, np.float32), np.zeros((2, 1024, 1024), np.float32)
    new = old.copy()
    new[0, 600:, 600:] = 60
    picture = difference_map(compare(lightness, old, new))
    assert picture.shape[1:] == (1024, 3)
    assert picture.shape[0] > 1024
    np.testing.assert_array_equal(picture[100, 100], (0, 0, 4))  # inferno's first colour
    assert picture[700, 700].tolist() == picture[990, 900].tolist()
    assert picture[700, 700].sum() > 600
    assert picture[1024:].max() == 255  # the legend's paper
    assert picture[1024:].min() == 0  # and its ink


def test_values_that_are_no_colour_are_refused():
    lightness, old, new = versions((20, 30))
    new[1, 3, 4] = np.nan
    with pytest.raises(StoreError, match="not finite") as caught:
        compare(lightness, old, new)
    assert "\n" not in str(caught.value)


def test_versions_of_other_sizes_are_refused():
    lightness, old, new = versions((20, 30))
    with pytest.raises(UsageError, match="only versions of one scan"):
        compare(lightness, old, new[:, :, :20])


@pytest.mark.parametrize("options", [{"full_px": 0}, {"window_px": 0}])
def test_limits_below_one_are_refused(options):
    with pytest.raises(UsageError, match="at least 1"):
        compare(*versions((4, 4)), **options)
