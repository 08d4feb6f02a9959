"""Colour conversions against scikit-image and against plain float64 arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage import color as reference

from pipeline.colour import lab as color
from tests.strategies import examples

TOLERANCE = {"uint8": 0.5, "uint16": 0.02}


def luminance_lightness(samples):
    """L* of RGB samples in float64, from the definition."""
    encoded = samples / np.iinfo(samples.dtype).max
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126390, 0.7151687, 0.0721923])
    return 116 * np.where(y > (6 / 29) ** 3, np.cbrt(y), y * 841 / 108 + 4 / 29) - 16


@pytest.mark.parametrize("rgb", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_gray_comes_back_exactly(dtype, rgb):
    levels = np.arange(np.iinfo(dtype).max + 1).astype(dtype).reshape(-1, 256)
    samples = np.dstack([levels] * 3) if rgb else levels
    lightness = color.lightness_from_samples(samples)
    result = color.samples_from_lab(lightness, np.zeros((2, *levels.shape), np.float32), np.dtype(dtype))
    np.testing.assert_array_equal(result, np.dstack([levels] * 3))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_lightness_of_rgb(dtype):
    samples = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (300, 301, 3), dtype, endpoint=True)
    samples[:100] //= 16
    np.testing.assert_allclose(color.lightness_from_samples(samples), luminance_lightness(samples), atol=2e-5)


def test_agrees_with_scikit_image():
    rgb = np.random.default_rng(0).random((50, 60, 3), dtype=np.float32)
    lab = color.lab_from_rgb(rgb)
    np.testing.assert_allclose(np.moveaxis(lab, 0, -1), reference.rgb2lab(rgb), atol=0.02)
    np.testing.assert_allclose(color.rgb_from_lab(lab[0], lab[1:]), rgb, atol=2e-4)
    np.testing.assert_allclose(
        color.rgb_from_lab(lab[0], lab[1:]), reference.lab2rgb(np.moveaxis(lab, 0, -1)), atol=3e-3
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_table_agrees_with_the_curve(dtype):
    random = np.random.default_rng(0)
    lightness = random.random((200, 300), dtype=np.float32) * 100
    chroma = random.normal(0, 40, (2, 200, 300)).astype(np.float32)
    plain = color.rgb_from_lab(lightness, chroma) * np.float64(np.iinfo(dtype).max)
    assert np.abs(color.samples_from_lab(lightness, chroma, np.dtype(dtype)) - plain).max() < 0.75


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_strips_do_not_show(dtype, monkeypatch):
    random = np.random.default_rng(0)
    lightness = random.random((40, 33), dtype=np.float32) * 100
    chroma = random.normal(0, 60, (2, 40, 33)).astype(np.float32)
    whole = color.samples_from_lab(lightness, chroma, np.dtype(dtype))
    monkeypatch.setattr("pipeline.support.row_bands.STRIP_PX", 70)
    np.testing.assert_array_equal(color.samples_from_lab(lightness, chroma, np.dtype(dtype)), whole)


lightnesses = arrays(np.float32, (4, 5), elements=st.floats(0, 100, width=32))
chromas = arrays(np.float32, (2, 4, 5), elements=st.floats(-128, 128, width=32))


@examples(150)
@given(lightness=lightnesses, chroma=chromas, dtype=st.sampled_from(["uint8", "uint16"]))
def test_lightness_is_kept_whatever_the_chroma(lightness, chroma, dtype):
    samples = color.samples_from_lab(lightness, chroma, np.dtype(dtype))
    assert np.abs(luminance_lightness(samples) - lightness).max() <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_lightness_is_kept_on_a_dense_grid(dtype):
    angles = np.linspace(0, 2 * np.pi, 120, dtype=np.float32)
    lightness, angle = np.meshgrid(np.linspace(0, 100, 401, dtype=np.float32), angles)
    for radius in (2, 20, 128, 181):
        samples = color.samples_from_lab(lightness, radius * np.stack([np.cos(angle), np.sin(angle)]), np.dtype(dtype))
        assert np.abs(luminance_lightness(samples) - lightness).max() <= TOLERANCE[dtype]


@examples(150)
@given(lightness=lightnesses, chroma=chromas)
def test_hue_is_kept_and_chroma_only_shrinks(lightness, chroma):
    back = color.lab_from_rgb(color.rgb_from_lab(lightness, chroma))[1:].astype(np.float64)
    wanted = np.hypot(*chroma.astype(np.float64))
    kept = np.hypot(*back)
    assert (kept <= wanted + 0.05).all()
    across = np.abs(back[0] * chroma[1] - back[1] * chroma[0]) / np.maximum(wanted, 1e-9)
    # Distance from the line of the wanted hue, in units of a*, b*.
    assert across[wanted > 1e-3].max(initial=0) < 0.1


def test_chroma_reaches_the_edge_of_the_gamut():
    rgb = color.rgb_from_lab(
        np.full((1, 1), 53.24, np.float32), np.array([104.5, 87.7], np.float32).reshape(2, 1, 1) * 1.2
    )
    np.testing.assert_allclose(rgb[0, 0], [1, 0, 0], atol=0.06)
