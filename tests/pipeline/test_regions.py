"""Grades of parts of a picture: nothing outside changes, all inside does, whatever blocks it is done in."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.colour.grading import Grade, LocalGrade
from pipeline.colour.regions import Region
from pipeline.errors import UsageError
from pipeline.shapes import Shape
from pipeline.types import Roi

SHAPE = (24, 36)
WHOLE = Roi(0, SHAPE[0], 0, SHAPE[1])


@st.composite
def boxes(draw):
    x, y = draw(st.integers(0, SHAPE[1] - 1)), draw(st.integers(0, SHAPE[0] - 1))
    return Shape("boxes", ((x, y, draw(st.integers(1, SHAPE[1] - x)), draw(st.integers(1, SHAPE[0] - y))),))


corners = st.tuples(st.floats(0, SHAPE[1], width=16), st.floats(0, SHAPE[0], width=16))
polygons = st.lists(corners, min_size=3, max_size=6).map(lambda every: Shape("polygon", tuple(every)))
regions = st.builds(
    Region,
    st.lists(st.one_of(boxes(), polygons), min_size=1, max_size=3).map(tuple),
    st.sampled_from([0.0, 0.5, 1.0, 4.0, 7.5, 30.0]),
)
grades = st.sampled_from([Grade(0.4), Grade(1.7, 6), Grade(hues=Grade.parse(hue_map="red>blue").hues), Grade()])


def block(seed=0):
    rng = np.random.default_rng(seed)
    chroma = rng.normal(0, 30, (2, *SHAPE)).astype(np.float16).astype(np.float32)
    return chroma, rng.uniform(0, 100, SHAPE).astype(np.float32)


def plain_weight(region):
    """Pixel by pixel: the way to the nearest pixel outside, over the feather's width, as a smooth step."""
    inside = belongs(region)
    if inside.all():
        return inside.astype(float)
    outside, weight = np.argwhere(~inside).T, np.zeros(SHAPE)
    for y, x in np.argwhere(inside):
        way = np.sqrt(((outside[0] - y) ** 2 + (outside[1] - x) ** 2).min())
        share = min(1.0, way / (region.feather_px + 1)) if region.feather_px else 1.0
        weight[y, x] = share * share * (3 - 2 * share)
    return weight


def belongs(region):
    masks = [shape.mask(WHOLE) for shape in region.shapes]
    return np.any([np.zeros(SHAPE, bool), *(mask for mask in masks if mask is not None)], axis=0)


@given(regions)
def test_the_soft_edge_is_the_way_to_the_nearest_pixel_outside(region):
    weight = region.weight(WHOLE, SHAPE)
    wanted = plain_weight(region)
    np.testing.assert_allclose(np.zeros(SHAPE) if weight is None else weight, wanted, atol=1e-5)
    if weight is not None:
        np.testing.assert_array_equal(weight == 0, wanted == 0)


@given(regions, regions, grades, grades, st.integers(1, 23), st.integers(1, 35))
def test_blocks_come_to_what_the_whole_comes_to_and_nothing_outside_changes(one, other, first, second, row, column):
    chroma, lightness = block()
    grade = Grade(regions=(LocalGrade(one, first), LocalGrade(other, second)))
    whole = grade.apply_regions(chroma, WHOLE, SHAPE, lightness)
    parts = np.empty_like(whole)
    for rows in ((0, row), (row, SHAPE[0])):
        for columns in ((0, column), (column, SHAPE[1])):
            roi = Roi(*rows, *columns)
            cut = chroma[:, roi.rows, roi.columns], roi, SHAPE, lightness[roi.rows, roi.columns]
            parts[:, roi.rows, roi.columns] = grade.apply_regions(*cut)
            if not grade.touches(roi):
                np.testing.assert_array_equal(cut[0], parts[:, roi.rows, roi.columns])
    assert parts.tobytes() == whole.tobytes()
    outside = ~(belongs(one) | belongs(other))
    assert whole[:, outside].tobytes() == chroma[:, outside].tobytes()


@given(regions, grades)
def test_deep_inside_it_is_the_grade_and_one_of_nothing_gives_the_same_bytes(region, part):
    chroma, lightness = block(1)
    made = Grade(regions=(LocalGrade(region, part),)).apply_regions(chroma, WHOLE, SHAPE, lightness)
    inside = plain_weight(region) == 1
    assert made[:, inside].tobytes() == part.apply(chroma, lightness)[:, inside].tobytes()
    if part.is_identity:
        np.testing.assert_array_equal(made, chroma)


@given(st.lists(st.tuples(regions, grades), max_size=4), grades)
def test_what_is_asked_of_a_region_takes_the_place_of_what_was_and_json_keeps_all(asked, whole):
    grade = whole
    last = {}
    for region, part in asked:
        grade = grade.then(Grade(regions=(LocalGrade(region, part),)))
        last.pop(region.shapes, None)
        last[region.shapes] = (region, part)
    assert grade.whole == whole
    assert [(each.region, each.grade) for each in grade.regions] == [
        (region, part) for region, part in last.values() if not part.is_identity
    ]
    assert Grade.from_json(json.loads(json.dumps(grade.to_json()))) == grade
    assert ("regions" in grade.to_json()) == bool(grade.regions)
    assert grade.then(Grade(0.3)) == Grade(0.3)


def test_the_border_of_the_scan_is_no_edge_and_shapes_that_meet_have_none_between():
    region = Region.parse("0,0,36,12; 0,12 36,12 36,24 0,24", "8")
    assert (region.weight(WHOLE, SHAPE) == 1).all()
    half = Region.parse("0,0,18,24", "8").weight(WHOLE, SHAPE)
    assert (half[:, 0] == 1).all()
    assert 0 < half[12, 17] < half[12, 14] < 1


@pytest.mark.parametrize(
    ("text", "feather", "words"),
    [
        ("1,2,3", None, "is no place"),
        ("1,2,3,nan", None, "is no place"),
        ("1,2 3,4", None, "is no place"),
        ("1,2,0,5", None, "is empty"),
        (" ; ", None, "0 shapes"),
        (";".join(["1,1,2,2"] * 101), None, "101 shapes"),
        ("1,1,2,2", "-1", "feather '-1'"),
        ("1,1,2,2", "soft", "feather 'soft'"),
    ],
)
def test_what_is_no_region_is_told_in_one_line(text, feather, words):
    with pytest.raises(UsageError, match=words) as told:
        Region.parse(text, feather)
    assert "\n" not in str(told.value)


def test_the_same_part_with_another_feather_takes_its_place():
    grade = Grade()
    for feather, saturation in (("4", 2.0), ("8", 0.5), ("40", 1.0)):
        grade = grade.then(Grade(regions=(LocalGrade(Region.parse("0,0,10,10", feather), Grade(saturation)),)))
        assert [each.grade.saturation for each in grade.regions] == ([saturation] if saturation != 1 else [])


def test_thin_regions_of_large_scans_are_there_and_flat_ones_are_not():
    frame = "0,0 20000,0 20000,20000 0,20000 0,0 5,5 5,19995 19995,19995 19995,5 5,5"
    Region.parse(frame).check((20_000, 20_000))
    Region.parse("100,0 101,0 101,2999 3000,2999 3000,3000 100,3000").check((3000, 3000))
    for flat in ("0,0 10,0 20,0", "5,5 5,5 5,5"):
        with pytest.raises(UsageError, match="no pixel's middle"):
            Region.parse(flat).check((50, 50))


def test_a_region_beyond_the_scan_is_refused():
    Region.parse("0,0,36,24").check(SHAPE)
    for text in ("0,0,37,24", "-1,0 5,0 5,5", "10.6,10.6,0.3,0.3"):
        with pytest.raises(UsageError, match=r"outside|no pixel"):
            Region.parse(text).check(SHAPE)
