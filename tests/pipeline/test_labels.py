"""Labels in copies: the picture's pixels stay, the text is there, and no script becomes boxes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import UsageError
from pipeline.formats import labels as module
from pipeline.formats.labels import Label, as_one, labelled, with_room
from pipeline.formats.picture import OutputImage
from pipeline.results.policy import Policy, Subject
from tests.strategies import examples

EVIDENCE = Label((("en", "Coloured by an algorithm. The colours are not evidence."),))


def picture(shape_yx=(300, 400), dtype="uint8", orientation=None, seed=0):
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, np.iinfo(dtype).max, (*shape_yx, 3), dtype=dtype, endpoint=True)
    made = OutputImage(shape_yx, np.dtype(dtype), lambda rows, columns: samples[rows, columns], orientation=orientation)
    return made, samples


def whole(image):
    return image.read_window(slice(0, image.shape_yx[0]), slice(0, image.shape_yx[1]))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("orientation", "turn"), [(None, None), (6, cv2.ROTATE_90_CLOCKWISE), (3, cv2.ROTATE_180)])
def test_a_strip_lies_below_the_upright_picture_and_covers_nothing(dtype, orientation, turn):
    image, samples = picture(dtype=dtype, orientation=orientation)
    upright = samples if turn is None else cv2.rotate(samples, turn)
    made = labelled(image, EVIDENCE)
    seen = whole(made)
    assert np.array_equal(seen[: upright.shape[0]], upright)
    assert seen.shape[1:] == upright.shape[1:]
    assert seen.dtype == dtype
    strip = seen[upright.shape[0] :] / np.iinfo(dtype).max
    assert 12 < strip.shape[0] < upright.shape[0] / 2
    assert strip.max() == 1
    assert strip.min() < 0.2
    assert 0.01 < (strip < 0.5).mean() < 0.4
    assert (strip[[0, -1]] == 1).all()
    assert (strip[:, [0, -1]] == 1).all()


def test_a_mark_lies_in_the_corner_and_the_rest_stays():
    image, samples = picture((1500, 2000))
    made = labelled(image, Label(EVIDENCE.texts, "corner"))
    assert made.shape_yx == image.shape_yx
    other = (whole(made) != samples).any(axis=2)
    rows, columns = np.flatnonzero(other.any(axis=1)), np.flatnonzero(other.any(axis=0))
    assert rows[0] > 1500 * 3 // 4
    assert columns[0] > 2000 // 2
    mark = whole(made)[rows[0] : rows[-1], columns[0] : columns[-1], 0]
    assert set(np.unique(mark)) >= {26, 255}


def test_a_mark_that_would_cover_too_much_becomes_a_strip():
    image, samples = picture((60, 80))
    seen = whole(labelled(image, Label(EVIDENCE.texts, "corner")))
    assert np.array_equal(seen[:60], samples)
    assert seen.shape[0] > 60


@pytest.mark.parametrize("place", ["strip", "corner"])
@pytest.mark.parametrize("shape_yx", [(40, 1), (40, 5), (40, 11), (3, 400)])
def test_narrow_pictures_have_a_label_too(shape_yx, place):
    image, samples = picture(shape_yx)
    seen = whole(labelled(image, Label(EVIDENCE.texts, place)))
    assert np.array_equal(seen[: shape_yx[0]], samples)
    assert seen.shape[0] > shape_yx[0]


@given(
    place=st.sampled_from(["strip", "corner"]),
    ends=st.tuples(*[st.tuples(st.integers(0, 2000), st.integers(0, 2000)) for _ in range(2)]),
)
@examples(40)
def test_any_window_is_a_part_of_the_whole(place, ends):
    made = labelled(picture((500, 700))[0], Label(EVIDENCE.texts, place))
    full = whole(made)
    (y0, y1), (x0, x1) = (sorted((a % extent, b % extent)) for (a, b), extent in zip(ends, made.shape_yx, strict=True))
    window = made.read_window(slice(y0, y1 + 1), slice(x0, x1 + 1))
    assert np.array_equal(window, full[y0 : y1 + 1, x0 : x1 + 1])


@pytest.mark.parametrize("place", ["strip", "corner"])
def test_the_picture_beside_it_has_the_same_size_and_no_text(place):
    image, samples = picture()
    label = Label(EVIDENCE.texts, place)
    room = with_room(image, label)
    assert room.shape_yx == labelled(image, label).shape_yx
    assert np.array_equal(whole(room)[:300], samples)
    assert (whole(room)[300:] == 255).all()


@pytest.mark.parametrize(
    "text",
    ["Ingekleurd; geen bewijs", "Цвета добавлены алгоритмом", "Χρωματισμένο από αλγόριθμο", "הצבעים אינם ראיה",
     "الألوان ليست دليلا", "ფერები", "Գույները"],
)  # fmt: skip
def test_scripts_of_the_font_are_set_as_pillow_sets_them(text):
    font = ImageFont.truetype(str(module._FONT_FILE), 40, layout_engine=ImageFont.Layout.RAQM)
    left, top, right, bottom = font.getbbox(text)
    canvas = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(canvas).text((-left, -top), text, font=font, fill=255)
    ours = module._line("none", text, 40, 10_000)
    theirs = np.asarray(canvas, np.float32) / 255
    assert ours.shape == pytest.approx(theirs.shape, rel=0.06, abs=4)
    size = (theirs.shape[1] // 8, theirs.shape[0] // 8)  # hints move edges by a part of a pixel
    small = [cv2.resize(each, size, interpolation=cv2.INTER_AREA).ravel() for each in (ours, theirs)]
    assert np.corrcoef(*small)[0, 1] > 0.7


def test_a_letter_that_no_font_has_is_refused_in_one_line():
    with pytest.raises(UsageError, match="no font here has \u0378") as refused:
        labelled(picture()[0], Label((("none", "a \u0378"),)))
    assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match="nothing that can be shown"):
        labelled(picture()[0], Label((("none", "\u202b"),)))


def test_markup_is_shown_as_it_is():
    plain, marked = (module._line("en", text, 20, 9_999) for text in ("b", "<b>b</b> & \" '"))
    assert marked.shape[1] > 5 * plain.shape[1]


def test_several_labels_say_everything_once():
    one, two = Label((("en", "a"), ("nl", "b")), "corner"), Label((("en", "a"), ("none", "c")))
    assert as_one([one, two]) == Label((("en", "a"), ("nl", "b"), ("none", "c")), "strip")
    assert as_one([]) is None
    image = picture()[0]
    assert labelled(image, as_one([one, two])).shape_yx[0] > labelled(image, Label((("en", "a"),))).shape_yx[0]


def test_the_policy_says_text_language_and_place():
    rule = {"name": "press", "action": "label", "names": "*", "label": {"en": "No\n evidence", "zh-Hant": "x"}}
    (made,) = Policy.from_json({"rules": [{**rule, "place": "corner"}]}).rules_for(Subject("a"), "label")
    assert made.label == Label((("en", "No evidence"), ("zh-Hant", "x")), "corner")
    (made,) = Policy.from_json({"rules": [{**rule, "label": "No evidence"}]}).rules_for(Subject("a"), "label")
    assert made.label == Label((("none", "No evidence"),))
    for wrong, told in (
        ({"place": "top"}, "'top'"),
        ({"label": {False: "Nei"}}, "no language"),
        ({"label": {"en": ""}}, "not a text"),
        ({"label": ["a"]}, "not a text"),
        ({"label": "No\0evidence"}, "nobody can read"),
        ({"label": "No \ud800 evidence"}, "nobody can read"),
        ({"action": "hold", "place": "strip", "label": ""}, "no other has"),
    ):
        with pytest.raises(UsageError, match=told):
            Policy.from_json({"rules": [{**rule, **wrong}]})
