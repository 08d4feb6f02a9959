"""Coloured copies are found on their scans, and pictures that are none are refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.colour.lab import lightness_from_samples
from pipeline.errors import PaletteCopyError
from pipeline.palettes.registration import Registration, register
from tests.copies import Handling, handled

HISTORIC = Path("training/evaluation/benchmarks/historic")
PHOTOGRAPHS = sorted((HISTORIC / "kodachromes").iterdir())[:6]


def photograph(index=0, side=300):
    bgr = cv2.imread(str(PHOTOGRAPHS[index]))
    scale = side / min(bgr.shape[:2])
    small = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2RGB)


def lightness(rgb):
    return np.asarray(lightness_from_samples(rgb), np.float32)


def apart_px(found: Registration, true_matrix, shape_yx):
    """The largest distance between where corners of the scan are said to lie and where they do."""
    height, width = shape_yx
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]).T
    return float(np.linalg.norm(np.array(found.matrix) @ corners - true_matrix @ corners, axis=0).max())


@settings(max_examples=5, deadline=None)
@given(
    index=st.integers(0, 5),
    handling=st.builds(
        Handling,
        megapixels=st.sampled_from([0.05, 0.2, 1.0]),
        scale=st.floats(0.97, 1.05),
        shift_xy=st.tuples(st.floats(-8, 8), st.floats(-8, 8)),
        degrees=st.floats(-2, 2),
        cropped=st.floats(0, 0.15),
        gain=st.floats(0.7, 1.0),
        offset=st.floats(0, 0.1),
        gamma=st.floats(0.7, 1.4),
        quality=st.integers(60, 95),
    ),
)
def test_shifted_scaled_turned_cropped_and_toned_copies_are_found_to_the_pixel(index, handling):
    rgb = photograph(index, side=240)
    copy, true_matrix = handled(rgb, handling)
    found = register(lightness(rgb), lightness(copy))
    assert apart_px(found, true_matrix, rgb.shape[:2]) < 1.0
    assert found.scale == pytest.approx(np.sqrt(np.linalg.det(true_matrix[:, :2])), rel=0.01)
    assert found.degrees == pytest.approx(handling.degrees, abs=0.3)


def test_a_copy_that_is_squeezed_and_partly_painted_anew_is_found():
    rgb = photograph()
    copy = cv2.resize(rgb, (round(rgb.shape[1] * 1.04), rgb.shape[0]))
    copy[60:160, 40:180] = (200, 90, 40)
    found = register(lightness(rgb), lightness(copy))
    assert apart_px(found, np.array([[1.04, 0, 0], [0, 1, 0]]), rgb.shape[:2]) < 1.5
    assert found.score > 0.7


def test_a_copy_that_stands_upright_is_found_on_a_scan_that_lies():
    rgb = photograph(1)
    found = register(lightness(rgb), lightness(np.rot90(rgb, -1)))
    assert found.degrees == pytest.approx(90, abs=0.2)
    assert found.covered == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("index", range(1, 6))
def test_another_picture_is_refused(index):
    with pytest.raises(PaletteCopyError, match=r"does not show what the scan shows.*give the right copy"):
        register(lightness(photograph(0)), lightness(photograph(index)))


@pytest.mark.parametrize("index", range(4))
def test_a_mirrored_copy_is_refused_and_called_so(index):
    rgb = photograph(index)
    with pytest.raises(PaletteCopyError, match="mirrored"):
        register(lightness(rgb), lightness(rgb[:, ::-1]))


def test_a_nearly_symmetrical_picture_is_not_taken_for_its_mirror_image():
    half = photograph(2)[:, :180]
    both = np.hstack([half, half[:, ::-1]]).astype(np.uint8)
    both[:, 180:] = cv2.addWeighted(both[:, 180:], 0.7, photograph(3)[:, :180], 0.3, 0)
    assert register(lightness(both), lightness(both)).score > 0.99
    with pytest.raises(PaletteCopyError, match="mirrored"):
        register(lightness(both), lightness(both[:, ::-1]))


def test_a_copy_of_a_corner_is_refused_with_its_share():
    rgb = photograph(3)
    height, width = rgb.shape[:2]
    with pytest.raises(PaletteCopyError, match=r"only \d\d% of the scan"):
        register(lightness(rgb), lightness(rgb[: height // 2, : width * 3 // 5]))


def test_a_plain_or_narrow_picture_is_refused():
    scan = lightness(photograph())
    with pytest.raises(PaletteCopyError, match="does not show"):
        register(scan, np.full((200, 200), 50, np.float32))
    with pytest.raises(PaletteCopyError, match="too narrow"):
        register(scan, np.full((8, 200), 50, np.float32))


def test_a_registration_of_shrunk_pictures_is_that_of_the_whole_ones():
    rgb = photograph(4, side=480)
    copy, true_matrix = handled(rgb)
    shrunk = cv2.resize(lightness(rgb), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    found = register(shrunk, lightness(copy)).scaled(2, 1)
    assert apart_px(found, true_matrix, rgb.shape[:2]) < 1.5
