"""Lightness by profile, against the plain formulas of CIE and of the colour spaces themselves."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.colour.icc import ProfileError, description, gamma_to_lightness, lab_to_lightness, to_lightness
from pipeline.formats.picture import SRGB_PROFILE

STEP = 100 / 65535


def plain_lightness(luminance):
    return np.where(luminance > (6 / 29) ** 3, 116 * np.cbrt(luminance) - 16, luminance * (29 / 3) ** 3)


def colours(dtype, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (70, 1200, 3), dtype, endpoint=True)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_adobe_rgb_is_as_light_as_its_own_definition_says(dtype):
    samples = colours(dtype)
    found = to_lightness(imagecodecs.cms_profile("adobergb"), "rgb", dtype)(samples)
    # Adobe RGB (1998), 4.3.4 and 4.3.5: gamma 2.19921875; the row of Y of its matrix.
    linear = (samples / np.iinfo(dtype).max) ** (563 / 256)
    assert found.dtype == np.uint16
    np.testing.assert_allclose(found * STEP, plain_lightness(linear @ [0.29734, 0.62736, 0.07529]), atol=0.005)


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_gray_follows_the_gamma_of_its_profile(dtype, gamma):
    ramp = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(256, -1)
    expected = plain_lightness((ramp / np.iinfo(dtype).max) ** gamma)
    # LittleCMS keeps gray's light in 16 bits, which is 0.01 L* in the dark.
    found = to_lightness(imagecodecs.cms_profile("gray", gamma=gamma), "gray", dtype)(ramp)
    np.testing.assert_allclose(found * STEP, expected, atol=0.02)
    np.testing.assert_allclose(gamma_to_lightness(gamma, dtype)(ramp) * STEP, expected, atol=STEP)


def test_rgb_of_a_gamma_is_weighted_in_linear_light():
    samples = colours("uint8")
    expected = plain_lightness((samples / 255) ** 2.2 @ [0.2126390, 0.7151687, 0.0721923])
    np.testing.assert_allclose(gamma_to_lightness(2.2, "uint8")(samples) * STEP, expected, atol=STEP)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_srgb_needs_no_conversion(dtype):
    assert to_lightness(SRGB_PROFILE, "rgb", dtype) is None


def test_lightness_of_lab_is_its_first_channel():
    lab = np.array([[[0, 9, 9], [128, 0, 0], [255, 1, 1]]], np.uint8)
    np.testing.assert_allclose(lab_to_lightness(255)(lab) * STEP, [[0, 128 / 2.55, 100]], atol=STEP)


def test_names_are_those_that_people_know():
    assert description(imagecodecs.cms_profile("adobergb")) == "Adobe RGB (compatible)"
    assert description(b"") == ""


@pytest.mark.parametrize(
    ("profile", "space", "words"),
    [
        (b"", "rgb", "not an ICC profile"),
        (SRGB_PROFILE, "cmyk", "for 'RGB', not for cmyk"),
        (SRGB_PROFILE[:140] + bytes(400), "rgb", "LittleCMS refuses"),
        (SRGB_PROFILE + bytes(17 * 2**20), "rgb", "above the limit"),
    ],
)
def test_a_profile_that_cannot_be_used_says_why(profile, space, words):
    with pytest.raises(ProfileError, match=words) as caught:
        to_lightness(profile, space, "uint8")
    assert "\n" not in str(caught.value)


@given(st.integers(0, len(SRGB_PROFILE) - 1), st.integers(0, 255), st.integers(132, len(SRGB_PROFILE)))
def test_a_damaged_profile_is_used_or_refused(at, byte, size):
    damaged = bytearray(SRGB_PROFILE[:size])
    damaged[at % size] = byte
    samples = colours("uint8")[:2, :2]
    description(bytes(damaged))
    try:
        convert = to_lightness(bytes(damaged), "rgb", "uint8")
    except ProfileError:
        return
    assert convert is None or convert(samples).shape == (2, 2)


def test_a_name_beyond_the_profile_is_no_name():
    header = SRGB_PROFILE[:128] + struct.pack(">I4sII", 1, b"desc", 2**31, 2**31)
    assert description(header) == ""
