"""Hints: how they spread over a scan, where they are, and the files that they come from."""

import json
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.measure import label, points_in_poly

from pipeline.colour.lab import lab_from_rgb, rgb_from_lab
from pipeline.errors import HintError
from pipeline.hints.colours import lab_of
from pipeline.hints.dividing import flooded, parts_of
from pipeline.hints.files import read_hints, write_hints
from pipeline.hints.model import AsIn, Hint, Hints
from pipeline.hints.recolouring import Known, recolouring
from pipeline.hints.spreading import Seen
from pipeline.shapes import Shape
from pipeline.tiling.anchor import square_means
from pipeline.types import Roi
from tests.strategies import examples

OLIVE = (-8.0, 30.0)
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "hints.schema.json").read_text())
WHOLE = Roi(0, 96, 0, 128)


def two_areas(step=30.0):
    """(96, 128) L* of two areas with an edge between columns 63 and 64, and a little noise."""
    lightness = np.full((96, 128), 50 - step / 2, np.float32)
    lightness[:, 64:] += np.float32(step)
    return lightness + np.random.default_rng(1).normal(0, 0.7, lightness.shape).astype(np.float32)


def applied(lightness, chroma, known, factor=1):
    small = [square_means(np.ascontiguousarray(plane), factor) for plane in (lightness, *chroma)]
    seen = Seen(small[0], np.stack(small[1:]), factor, lightness.shape)
    return recolouring(
        known, seen, lambda roi: chroma[:, roi.rows, roi.columns], lambda roi: lightness[roi.rows, roi.columns]
    )


def point(x, y):
    return Shape("points", ((x, y),))


@pytest.mark.parametrize(("factor", "step"), [(1, 30), (2, 30), (1, 10), (1, 6)])
def test_a_hint_holds_spreads_over_its_area_and_stops_at_the_edge(factor, step):
    lightness, chroma = two_areas(step), np.zeros((2, 96, 128), np.float32)
    made = applied(lightness, chroma, [Known(point(30, 50), OLIVE)], factor).apply(chroma, WHOLE, lightness)
    assert made[:, 50, 30] == pytest.approx(OLIVE)
    assert made[1, 50, 36] == pytest.approx(30, rel=0.2)
    assert (made[1, 20:76, 10:50] > 5).all()
    before, after = (np.moveaxis(lab_from_rgb(rgb_from_lab(lightness, each)), 0, -1)[:, 65:] for each in (chroma, made))
    assert deltaE_ciede2000(before, after).max() < 1


def test_an_edge_that_fades_out_somewhere_still_divides():
    lightness, chroma = two_areas(14), np.zeros((2, 96, 128), np.float32)
    lightness[90:] = 50
    made = applied(lightness, chroma, [Known(point(30, 50), OLIVE)]).apply(chroma, WHOLE, lightness)
    assert made[1, 20:76, 40:60].min() > 5
    assert made[1, 4:84, 68:].max() < 1


@pytest.mark.parametrize("size", [0, 2, 4])
def test_what_is_rough_everywhere_is_not_divided(size):
    noise = np.random.default_rng(4).normal(0, 1, (96, 128)).astype(np.float32)
    spots = cv2.GaussianBlur(noise, (0, 0), size) if size else noise
    lightness, chroma = 50 + spots * np.float32(5 / spots.std()), np.zeros((2, 96, 128), np.float32)
    made = applied(lightness, chroma, [Known(point(30, 50), OLIVE)]).apply(chroma, WHOLE, lightness)
    assert np.median(made[1, 20:76, 50:70]) > 10
    assert (made[1, 20:76, 50:70] > 5).mean() > 0.9


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.floats(0, 100, width=32)))
@examples(30)
def test_parts_are_whole_areas_and_those_of_a_higher_limit_are_made_of_those_of_a_lower(lightness):
    fine, coarse = parts_of(lightness, (2.0, 4.0))
    for labels in (fine, coarse):
        for each in np.unique(labels):
            assert label(labels == each, connectivity=1, return_num=True)[1] == 1
    both = np.unique(np.stack([fine.ravel(), coarse.ravel()]), axis=1)
    assert len(np.unique(both[0])) == both.shape[1]


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 9)),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=6),
)
@examples(60)
def test_water_that_rises_from_its_markers_enters_no_place_that_another_one_reaches_first(strength, places):
    markers = np.zeros(strength.shape, np.int32)
    for number, (y, x) in enumerate(places, 1):
        markers[y % strength.shape[0], x % strength.shape[1]] = number
    found = flooded(strength, markers)
    assert (found[markers > 0] == markers[markers > 0]).all()
    for number in np.unique(found):
        assert label(found == number, connectivity=1, return_num=True)[1] == 1
    for level in range(10):
        lakes = label(strength <= level, connectivity=1)
        for lake in range(1, lakes.max() + 1):
            springs = set(markers[lakes == lake]) - {0}
            assert not springs or set(found[lakes == lake]) <= springs


def test_between_two_hints_of_one_area_the_colour_goes_from_one_to_the_other():
    lightness = np.full((96, 128), 60, np.float32)
    chroma = np.full((2, 96, 128), 3, np.float32)
    known = [Known(point(10, 48), (0.0, 40.0)), Known(point(118, 48), (0.0, -40.0))]
    made = applied(lightness, chroma, known).apply(chroma, WHOLE, lightness)
    row = made[1, 48, 12:117]
    assert (np.diff(row) <= 0.5).all()
    assert row[0] > 30 > -30 > row[-1]


def test_gray_areas_have_no_chroma_at_all_and_beyond_a_reach_no_bit_changes():
    lightness = two_areas()
    chroma = np.random.default_rng(2).normal(0, 9, (2, 96, 128)).astype(np.float32)
    chroma[:, 0, 0] = -0.0
    known = [
        Known(Shape("polygon", ((70, 10), (120, 12), (100, 80))), (0.0, 0.0), 0.0),
        Known(point(10, 80), OLIVE, 0.2),
    ]
    ready = applied(lightness, chroma, known)
    made = ready.apply(chroma, WHOLE, lightness)
    gray = known[0].shape.mask(WHOLE)
    assert not made[:, gray].any()
    y, x = np.mgrid[:96, :128]
    beyond = ~gray & (np.hypot(y - 80, x - 10) > 0.2 * 96 + 4)
    assert (made[:, beyond].view(np.uint32) == chroma[:, beyond].view(np.uint32)).all()
    assert not ready.touches(Roi(0, 40, 0, 60))
    assert ready.touches(Roi(70, 90, 0, 30))
    assert ready.touches(Roi(20, 30, 80, 90))


@given(st.integers(0, 80), st.integers(0, 110), st.integers(1, 16), st.integers(1, 18))
@examples(20)
def test_a_region_by_itself_is_what_it_is_in_the_whole(y, x, height, width):
    lightness, chroma = two_areas(), np.zeros((2, 96, 128), np.float32)
    known = [Known(point(30, 50), OLIVE), Known(Shape("boxes", ((80, 20, 20, 30),)), (20.0, 5.0))]
    ready = applied(lightness, chroma, known)
    roi = Roi(y, y + height, x, x + width)
    part = ready.apply(chroma[:, roi.rows, roi.columns], roi, np.ascontiguousarray(lightness[roi.rows, roi.columns]))
    assert (part == ready.apply(chroma, WHOLE, lightness)[:, roi.rows, roi.columns]).all()


def test_what_is_no_picture_stays_as_it_is():
    lightness, chroma = two_areas(), np.zeros((2, 96, 128), np.float32)
    coloured = np.ones((96, 128), bool)
    coloured[:, :40] = False
    known = [Known(Shape("boxes", ((10, 10, 60, 60),)), OLIVE)]
    made = applied(lightness, chroma, known).apply(chroma, WHOLE, lightness, coloured)
    assert not made[:, :, :40].any()
    assert made[:, 20:60, 45:60].any()


@given(st.lists(st.tuples(st.floats(-5, 45), st.floats(-5, 45)), min_size=3, max_size=7))
@example([(0.0, 0.0), (0.0, 0.0), (26.974144476996855, 26.974144476996855)])
@examples(60)
def test_pixels_of_a_polygon_are_those_whose_middles_are_inside(corners):
    shape, roi = Shape("polygon", tuple(corners)), Roi(3, 38, 5, 41)
    y, x = np.mgrid[roi.rows, roi.columns] + 0.5
    wanted = points_in_poly(np.stack([x.ravel(), y.ravel()], 1), np.array(corners)).reshape(y.shape)
    mask = shape.mask(roi)
    found = np.zeros(roi.shape_yx, bool) if mask is None else mask
    # Rounding decides of middles that are on a side, which may run through many of them.
    apart = np.full(y.shape, np.inf)
    for start, end in zip(np.array(corners), np.roll(corners, -1, 0), strict=True):
        along, from_start = end - start, np.stack([x, y], -1) - start
        share = np.clip(from_start @ along / max(along @ along, 1e-300), 0, 1)
        apart = np.minimum(apart, np.linalg.norm(from_start - share[..., None] * along, axis=-1))
    assert not (found != wanted)[apart > 1e-6].any()


def test_samples_of_a_shape_are_its_own_pixels():
    for shape in (
        Shape("boxes", ((3, 4, 30, 2),)),
        Shape("polygon", ((0, 0), (40, 3), (10, 50))),
        Shape("points", ((1.5, 2.9), (7, 7))),
        Shape("boxes", ((0, 0, 1, 1), (5, 5, 9, 1))),
    ):
        pixels, mask = shape.pixels(12), shape.mask(Roi(0, 64, 0, 64))
        assert 1 <= len(pixels) <= 12
        assert mask[tuple(pixels.T)].all()


def test_colours_are_those_of_css_and_what_no_picture_can_show_is_refused():
    for text, rgb in (("#556b2f", (85, 107, 47)), ("OliveDrab", (107, 142, 35)), ("#f00", (255, 0, 0))):
        assert lab_of(text) == pytest.approx(rgb2lab(np.array([[rgb]], np.uint8))[0, 0], abs=0.05)
    assert lab_of("gray")[1:] == lab_of("#cccccc")[1:] == (0.0, 0.0)
    assert lab_of("lab(42, -18, 31)") == (42.0, -18.0, 31.0)
    with pytest.raises(HintError, match="outside sRGB"):
        lab_of("lab(50, 120, -120)")
    for text in ("grün", "#12", "lab(1,2)", "lab(x, 1, 2)", "lab(nan, 1, 2)"):
        with pytest.raises(HintError):
            lab_of(text)


def file_of(tmp_path, *hints, **others):
    path = tmp_path / "a.hints.json"
    path.write_text(json.dumps({"format": "colorize-archive hints", "version": 1, "hints": list(hints), **others}))
    return path


def test_what_is_written_is_read_again_and_fits_the_schema(tmp_path):
    hints = Hints(
        (
            Hint(point(3, 4), "#556b2f", 0.5, "A. Curator", "2026-11-30", "museum no. 17"),
            Hint(Shape("points", ((1, 2), (3.5, 9))), AsIn("album/b", 7, 8)),
            Hint(Shape("boxes", ((10, 10, 5, 5),)), "gray"),
            Hint(Shape("polygon", ((20, 20), (30, 20), (30, 30))), "lab(42, -18, 31)"),
        )
    )
    path = tmp_path / "a.hints.json"
    write_hints(path, hints)
    jsonschema.validate(json.loads(path.read_text()), SCHEMA)
    assert read_hints(path, (50, 50)) == hints
    hints.check((50, 50))
    assert hints.hints[2].spreads == 0
    assert hints.hints[0].spreads == 0.5


@pytest.mark.parametrize(
    ("hints", "words"),
    [
        ([{"at": [50, 1], "colour": "red"}], "hint 1 at 50,1: is outside the scan"),
        ([{"box": [40, 40, 20, 5], "colour": "red"}], "outside the scan"),
        ([{"at": [5, 5], "colour": "red"}, {"box": [0, 0, 9, 9], "colour": "blue"}], "give 5,5 two colours"),
        ([{"at": [5, 5], "colour": "lab(50, 120, -120)"}], "outside sRGB"),
        ([{"at": [5, 5]}], 'has no "colour"'),
        ([{"at": [5, 5], "colour": "red", "size": 3}], "has 'size'"),
        ([{"at": [5, 5], "box": [1, 1, 1, 1], "colour": "red"}], "has 2 places"),
        ([{"at": [5, float("inf")], "colour": "red"}], "is no number"),
        ([{"polygon": [[1, 1], [2, 2]], "colour": "red"}], "2 corners"),
        ([{"box": [1, 1, 0, 1], "colour": "red"}], "is empty"),
        ([{"at": [5, 5], "colour": "red", "reach": 9}], "reach of 9"),
        ([7], "no object"),
    ],
)
def test_a_hint_that_is_wrong_is_told_with_its_number(tmp_path, hints, words):
    with pytest.raises(HintError, match=words):
        read_hints(file_of(tmp_path, *hints), (50, 50)).check((50, 50))


def test_files_of_another_version_or_kind_or_size_are_refused(tmp_path):
    with pytest.raises(HintError, match="is of version 2"):
        read_hints(file_of(tmp_path, version=2), (50, 50))
    with pytest.raises(HintError, match="is no file of hints"):
        read_hints(file_of(tmp_path, format="other"), (50, 50))
    path = tmp_path / "b.hints.json"
    path.write_text("{")
    with pytest.raises(HintError, match="is no JSON"):
        read_hints(path, (50, 50))
    with path.open("wb") as stream:
        stream.truncate(51 * 2**20)
    with pytest.raises(HintError, match="has 51 MiB"):
        read_hints(path, (50, 50))


def test_strokes_are_hints_of_the_scans_own_pixels_one_of_each_colour(tmp_path):
    painted = np.zeros((25, 50, 4), np.uint8)
    painted[5:7, 10:30] = (47, 107, 85, 255)  # blue, green, red
    painted[20, 40:45] = (128, 128, 128, 255)
    path = tmp_path / "a.hints.png"
    cv2.imwrite(str(path), painted)
    hints = read_hints(path, (100, 200))
    hints.check((100, 200))
    assert [hint.colour for hint in hints.hints] == ["#556b2f", "#808080"]
    mask = hints.hints[0].shape.mask(Roi(0, 100, 0, 200))
    wanted = np.zeros((100, 200), bool)
    wanted[20:28, 40:120] = True
    assert (mask == wanted).all()
    assert hints.hints[1].spreads == 0
    with pytest.raises(HintError, match="not the proportions"):
        read_hints(path, (100, 100))
    cv2.imwrite(str(path), painted[..., :3])
    with pytest.raises(HintError, match="has no transparency"):
        read_hints(path, (100, 200))


def test_annotations_of_viewers_are_hints_where_their_text_is_a_colour(tmp_path):
    def annotation(target, *texts):
        bodies = [{"type": "TextualBody", "value": text} for text in texts]
        return {"type": "Annotation", "body": bodies, "target": target, "creator": {"name": "B"}, "created": "2026"}

    svg = '<svg xmlns="http://www.w3.org/2000/svg"><path d="M 10,10 h20 v 20 L 10 30 z"/></svg>'
    page = {
        "@context": "http://www.w3.org/ns/anno.jsonld",
        "type": "AnnotationPage",
        "items": [
            annotation("https://x/canvas#xywh=1,2,30,40", "#556b2f", "wool tunic"),
            annotation({"source": "x", "selector": {"type": "SvgSelector", "value": svg}}, "gray"),
            annotation(
                {"source": "x", "selector": {"type": "FragmentSelector", "value": "xywh=percent:50,50,10,10"}}, "red"
            ),
            annotation("https://x/canvas#xywh=1,2,30,40", "Who is this?"),
        ],
    }
    path = tmp_path / "a.hints.json"
    path.write_text(json.dumps(page))
    first, second, third = read_hints(path, (100, 200)).hints
    assert first == Hint(Shape("boxes", ((1, 2, 30, 40),)), "#556b2f", None, "B", "2026", "wool tunic")
    assert second.shape == Shape("polygon", ((10, 10), (30, 10), (30, 30), (10, 30)))
    assert third.shape == Shape("boxes", ((100, 50, 20, 10),))
    path.write_text(
        json.dumps(
            annotation({"selector": {"type": "SvgSelector", "value": svg.replace("h20", "c1 1 2 2 3 3")}}, "red")
        )
    )
    with pytest.raises(HintError, match="has a curve"):
        read_hints(path, (100, 200))
