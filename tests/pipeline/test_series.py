"""The palettes of a series: one colour where scans show the same, and nothing changed elsewhere."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.palettes.series import Reading, join
from pipeline.tiling.palette import Palette
from tests.pipeline.test_registration import lightness, photograph


def reading(name, plane, draw):
    """Of a picture, with colours that nobody has reason for."""
    cells = draw.normal(0, 15, (2, 16, 20)).astype(np.float32)
    cells = np.stack([cv2.GaussianBlur(each, (0, 0), 2) * 4 for each in cells])
    sure = draw.uniform(0.02, 0.2, (16, 20)).astype(np.float32)
    return Reading(name, plane, Palette(cells, (plane.shape[0] / 16, plane.shape[1] / 20)), sure)


def under(joined, plane, columns):
    """The (2, H, w) colours of a picture's columns."""
    return joined.palette.under((0, 0), plane.shape)[:, :, columns]


@settings(max_examples=6, deadline=None)
@given(index=st.integers(0, 5), gamma=st.floats(0.7, 1.3), seed=st.integers(0, 99))
def test_crops_in_other_tones_agree_where_they_overlap(index, gamma, seed):
    plane, draw = lightness(photograph(index, side=240)), np.random.default_rng(seed)
    third = plane.shape[1] // 3
    left, right = plane[:, : 2 * third], (100 * (plane[:, third:] / 100) ** gamma).astype(np.float32)
    readings = [reading("left", left, draw), reading("right", right, draw)]
    joined = join(readings)
    assert [set(joined[name].shared) for name in ("left", "right")] == [{"right"}, {"left"}]
    both = [slice(third + 6, 2 * third - 6), slice(6, third - 6)]
    before = [
        each.palette.under((0, 0), plane_.shape)[:, :, part]
        for each, plane_, part in zip(readings, (left, right), both, strict=True)
    ]
    after = [under(joined[n], p, part) for n, p, part in zip(("left", "right"), (left, right), both, strict=True)]
    assert np.abs(after[0] - after[1]).mean() < 0.15 * np.abs(before[0] - before[1]).mean()
    # At the far edge of the left picture its own colours stay.
    own = readings[0].palette.under((0, 0), left.shape)[:, :, : third // 2]
    assert np.abs(under(joined["left"], left, slice(0, third // 2)) - own).mean() < 0.5


def test_unlike_pictures_keep_their_palettes_to_the_bit_and_order_does_not_matter():
    draw = np.random.default_rng(3)
    planes = [lightness(photograph(index, side=200)) for index in (0, 1, 2)]
    readings = [reading(str(index), plane, draw) for index, plane in enumerate(planes)]
    joined = join(readings)
    assert all(joined[each.name].palette is each.palette and not joined[each.name].shared for each in readings)

    like = [reading("a", planes[0], draw), reading("b", planes[0], draw), readings[1]]
    one, other = join(like), join(like[::-1])
    for each in like:
        assert np.array_equal(one[each.name].palette.cells, other[each.name].palette.cells)
