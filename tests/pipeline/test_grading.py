"""A grade changes chroma alone, smoothly, and leaves gray gray; each part is compared with the plain way to do it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.colour.colourfulness import colourfulness
from pipeline.colour.grading import Grade, HueChange, factor_for
from pipeline.colour.hues import HUES
from pipeline.colour.lab import lab_from_rgb, lightness_from_samples, samples_from_lab
from pipeline.errors import UsageError
from tests.strategies import examples

SCANS = Path(__file__).parents[1] / "scans"
ROUND = [name for name in HUES if name != "brown"]
# CSS Color Module Level 4, 6.1.
CSS = {
    "red": ("ff0000", "dc143c"),
    "orange": ("ff8c00", "ffa500"),
    "yellow": ("ffff00", "ffd700"),
    "green": ("008000", "00ff00"),
    "cyan": ("00ffff", "008080"),
    "blue": ("4682b4", "6495ed"),
    "violet": ("4b0082", "8a2be2"),
    "magenta": ("ff00ff", "ff1493"),
}
BROWNS = ("8b4513", "a0522d")  # saddlebrown, sienna

changes = st.one_of(
    st.builds(HueChange, st.sampled_from(list(HUES)), factor=st.floats(0, 4, width=16)),
    st.builds(HueChange, st.sampled_from(list(HUES)), st.sampled_from(list(HUES))),
)
hue_maps = st.lists(changes, max_size=4, unique_by=lambda change: (change.hue, bool(change.to))).map(
    lambda found: tuple(sorted(change for change in found if not change.is_none))
)
saturations = st.floats(0, 4, width=16)
warmths = st.floats(-20, 20, width=16)
grades = st.builds(Grade, saturations, warmths, hue_maps)


def block(seed: int, shape_yx: tuple[int, int] = (7, 11)) -> tuple[np.ndarray, np.ndarray]:
    """Colours of all hues, and lightness from ink to paper."""
    rng = np.random.default_rng(seed)
    chroma = rng.normal(0, 30, (2, *shape_yx)).astype(np.float16).astype(np.float32)
    return chroma, rng.uniform(0, 100, shape_yx).astype(np.float32)


def lab_of(css: str) -> tuple[float, float, float]:
    rgb = np.array([[[int(css[i : i + 2], 16) / 255 for i in (0, 2, 4)]]], np.float32)
    return tuple(lab_from_rgb(rgb)[:, 0, 0])


def weights_of(css: str) -> dict[str, float]:
    lightness, a, b = (np.float32([value]) for value in lab_of(css))
    hue = np.degrees(np.arctan2(b, a))
    return {name: float(each.weight(hue, lightness)[0]) for name, each in HUES.items()}


@given(st.integers(0, 1000))
def test_a_grade_that_changes_nothing_gives_the_same_bytes(seed):
    chroma, lightness = block(seed)
    for grade in (Grade(), Grade.parse("1", "0", "blue:1, red>red"), Grade.parse()):
        assert grade.is_identity
        assert grade.apply(chroma, lightness).tobytes() == chroma.tobytes()


@given(st.integers(0, 1000), saturations, hue_maps)
def test_gray_stays_gray_under_saturation_and_hues(seed, saturation, hues):
    _, lightness = block(seed)
    assert not Grade(saturation, hues=hues).apply(np.zeros((2, *lightness.shape), np.float32), lightness).any()


@given(st.integers(0, 1000), saturations)
def test_saturation_is_a_factor_on_chroma_at_the_same_hue(seed, saturation):
    chroma, lightness = block(seed)
    np.testing.assert_array_equal(Grade(saturation).apply(chroma, lightness), chroma * np.float32(saturation))


@examples(30)
@given(st.integers(0, 1000), grades)
def test_what_is_given_is_left_alone_and_each_pixel_is_by_itself(seed, grade):
    chroma, lightness = block(seed)
    before = chroma.tobytes(), lightness.tobytes()
    whole = grade.apply(chroma, lightness)
    assert (chroma.tobytes(), lightness.tobytes()) == before
    parts = [
        grade.apply(chroma[:, y : y + 1, x : x + 1], lightness[y : y + 1, x : x + 1]) for y, x in np.ndindex(7, 11)
    ]
    np.testing.assert_allclose(np.reshape(np.stack(parts, 1), whole.shape), whole, rtol=1e-5, atol=1e-4)


@examples(60)
@given(grades)
def test_a_grade_survives_json_and_its_own_words(grade):
    assert Grade.from_json(json.loads(json.dumps(grade.to_json()))) == grade
    assert Grade.parse(hue_map=", ".join(map(str, reversed(grade.hues)))).hues == grade.hues


@examples(60)
@given(grades, st.floats(0, 60), st.floats(5, 95))
def test_no_hue_has_an_edge(grade, radius, lightness):
    """Round the circle in steps of a twentieth of a degree, no step of the result stands out."""
    angles = np.radians(np.arange(7200) / 20)
    around = (radius * np.stack([np.cos(angles), np.sin(angles)]))[:, None].astype(np.float32)
    graded = grade.apply(around, np.full((1, angles.size), lightness, np.float32))[:, 0]
    steps = np.linalg.norm(np.roll(graded, -1, 1) - graded, axis=0)
    # A whole weight comes and goes over 33 degrees at least, at most half as fast again in the middle; there may be two
    # of eight changes at a place, and brown.
    assert steps.max() <= 1e-3 + radius * 4**3 * (1 + 6) * 3 * 1.5 / 33 / 20


@examples(60)
@given(grades, st.floats(-60, 60), st.floats(-60, 60))
def test_no_lightness_has_an_edge(grade, a, b):
    lightness = np.linspace(0, 100, 4001, dtype=np.float32)[None]
    chroma = np.broadcast_to(np.float32([a, b])[:, None, None], (2, 1, 4001))
    graded = grade.apply(chroma, lightness)[:, 0]
    assert np.linalg.norm(np.diff(graded), axis=0).max() <= 1e-3 + (math.hypot(a, b) * 4 * 5 * 4 + 20) * 1.5 / 20 / 40


@given(st.floats(-180, 360), st.floats(0, 100))
def test_the_eight_hues_share_out_the_circle(hue, lightness):
    at = np.float32([hue]), np.float32([lightness])
    weights = [float(HUES[name].weight(*at)[0]) for name in ROUND]
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    assert sum(weight > 0 for weight in weights) <= 2


@given(st.integers(0, 1000), saturations)
def test_the_same_factor_for_every_hue_is_saturation(seed, factor):
    chroma, lightness = block(seed)
    every = Grade.parse(hue_map=", ".join(f"{name}:{factor}" for name in ROUND))
    whole = Grade(factor).apply(chroma, lightness)
    np.testing.assert_allclose(every.apply(chroma, lightness), whole, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("name", "css"), [(name, css) for name, known in CSS.items() for css in known])
def test_named_colours_are_of_their_hue_more_than_of_any_other(name, css):
    weights = weights_of(css)
    assert max(ROUND, key=weights.get) == name


@pytest.mark.parametrize(("name", "hue"), [("red", 24), ("yellow", 90), ("green", 162), ("blue", 246)])
def test_unique_hues_are_of_their_hue(name, hue):
    at = np.float32([hue]), np.float32([50])
    assert max(ROUND, key=lambda each: float(HUES[each].weight(*at)[0])) == name


def test_brown_is_dark_orange():
    assert min(weights_of(css)["brown"] for css in BROWNS) > 0.9
    assert max(weights_of(css)["brown"] for css in ("ffa500", "ffd700", "4682b4", "d2b48c")) < 0.1


def test_a_hue_is_turned_to_another():
    centre = {name: math.radians(hue.centre) for name, hue in HUES.items()}
    blue = np.float32([[[math.cos(centre["blue"])]], [[math.sin(centre["blue"])]]]) * 30
    turned = Grade.parse(hue_map="blue>brown").apply(blue, np.float32([[40]]))
    assert math.hypot(*turned.ravel()) == pytest.approx(30, rel=1e-5)
    assert math.atan2(turned[1, 0, 0], turned[0, 0, 0]) == pytest.approx(centre["brown"], abs=1e-5)
    # Green is none of it.
    green = np.float32([[[math.cos(centre["green"])]], [[math.sin(centre["green"])]]]) * 30
    np.testing.assert_array_equal(Grade.parse(hue_map="blue>brown").apply(green, np.float32([[40]])), green)


def test_warmth_goes_along_daylight_and_leaves_ink_and_paper():
    # CIE 15:2018, 4.1.2: chromaticities of D65 and D50.
    white = {"D65": (0.31272, 0.32903), "D50": (0.34567, 0.35851)}
    (x65, z65), (x50, z50) = ((x / y, (1 - x - y) / y) for x, y in white.values())
    line = np.array([500 * (np.cbrt(x50 / x65) - 1), 200 * (1 - np.cbrt(z50 / z65))])
    lightness = np.float32([[0, 5, 50, 95, 100]])
    shift = Grade(warmth=10).apply(np.zeros((2, 1, 5), np.float32), lightness)[:, 0]
    np.testing.assert_array_equal(shift[:, [0, 1, 3, 4]], 0)
    np.testing.assert_allclose(shift[:, 2], 10 * line / np.hypot(*line), atol=0.05)
    assert np.hypot(*line) == pytest.approx(17.8, abs=0.1)


def test_where_there_is_no_picture_nothing_is_tinted():
    coloured = np.array([[True, False]])
    shift = Grade(warmth=-5).apply(np.zeros((2, 1, 2), np.float32), np.float32([[50, 50]]), coloured)
    assert np.hypot(*shift[:, 0, 0]) == pytest.approx(5, rel=1e-3)
    assert not shift[:, 0, 1].any()


@pytest.fixture(scope="module")
def photograph():
    """L* of a photograph, and a*, b* of all hues that change slowly and are calm, as a network's are."""
    lightness = lightness_from_samples(cv2.imread(str(SCANS / "sunset-beach.jpg"), cv2.IMREAD_GRAYSCALE)[::4, ::4])
    noise = np.random.default_rng(1).normal(0, 1, (*lightness.shape, 2)).astype(np.float32)
    slow = cv2.GaussianBlur(noise, (0, 0), 20)
    return np.moveaxis(slow * (12 / slow.std()) + np.float32([3, 6]), -1, 0).astype(np.float32), lightness


@pytest.mark.parametrize("goal", [0, 15, 28, 40])
@pytest.mark.parametrize("hue_map", ["", "orange>blue, violet:0.4"])
def test_a_colourfulness_is_reached(photograph, goal, hue_map):
    chroma, lightness = photograph
    grade = Grade.parse(hue_map=hue_map, colourfulness=goal)
    graded = grade.apply(chroma, lightness, factor=factor_for(grade, chroma, lightness))
    picture = samples_from_lab(lightness, graded, np.dtype(np.uint8)) / 255
    assert colourfulness(picture) == pytest.approx(goal, rel=0.02, abs=0.1)
    # Nothing but chroma has changed, but for eight bits.
    after = lightness_from_samples(np.rint(picture * 255).astype(np.uint8))
    assert np.abs(after - lightness).max() < 0.5


def test_a_colourfulness_beyond_reach_is_told(photograph):
    chroma, lightness = photograph
    with pytest.raises(UsageError, match="4 times the colours that are there come to"):
        factor_for(Grade(colourfulness=150), chroma, lightness)
    with pytest.raises(UsageError, match="the warmth alone comes to"):
        factor_for(Grade(warmth=20, colourfulness=1), chroma, lightness)


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"saturation": -0.1}, "saturation -0.1"),
        ({"saturation": "4.5"}, "saturation '4.5'"),
        ({"saturation": "nan"}, "saturation 'nan'"),
        ({"warmth": "hot"}, "warmth 'hot'"),
        ({"warmth": 20.5}, "warmth 20.5"),
        ({"colourfulness": 151}, "colourfulness 151"),
        ({"hue_map": "purple:0.4"}, "purple is not a hue that is known; give one of red"),
        ({"hue_map": "blue>beige"}, "beige is not a hue"),
        ({"hue_map": "blue"}, "neither a factor nor a hue"),
        ({"hue_map": "blue:-1"}, "factor '-1'"),
        ({"hue_map": "blue:2, blue:3"}, "blue is changed twice"),
        ({"saturation": 1, "colourfulness": 20}, "give one of them"),
    ],
)
def test_what_is_no_grade_is_told_in_one_line(given_, words):
    with pytest.raises(UsageError, match=words.replace("(", r"\(")) as told:
        Grade.parse(**given_)
    assert "\n" not in str(told.value)
