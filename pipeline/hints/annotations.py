"""Hints from W3C Web Annotations, as viewers of IIIF write them: a place of the picture, and a colour as its text.

Read are rectangles (``xywh=``), points and SVG polygons, rectangles and paths of straight lines. Their coordinates are
taken as the scan's pixels, which those of a IIIF image are, and those of a canvas of the image's size.

References
----------
W3C, Web Annotation Data Model, 2017, 3.2.4 (textual bodies), 4.2.1 and 4.2.7 (fragment and SVG selectors).
W3C, Media Fragments URI 1.0, 2012, 4.2.2 (xywh). IIIF Presentation API 3.0. W3C, SVG 1.1, 8.3 and 9.7.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from pipeline.errors import HintError
from pipeline.hints.colours import lab_of
from pipeline.hints.model import MOST_HINTS, Hint, Hints
from pipeline.shapes import Shape

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_XYWH = re.compile(rf"xywh=(pixel:|percent:)?({_NUMBER}),({_NUMBER}),({_NUMBER}),({_NUMBER})")


def is_annotation(values: Any) -> bool:
    """Whether JSON is one annotation, a page of them, or a list of them."""
    if isinstance(values, list):
        return bool(values) and all(is_annotation(each) for each in values)
    return isinstance(values, Mapping) and values.get("type") in ("Annotation", "AnnotationPage")


def from_annotations(values: Any, shape_yx: tuple[int, int]) -> Hints:
    """The hints of annotations on a scan of this size; what has no colour as its text is not one. Raises HintError."""
    hints = []
    for number, annotation in enumerate(_annotations(values), 1):
        try:
            if (hint := _hint(annotation, shape_yx)) is not None:
                hints.append(hint)
        except HintError as error:
            raise HintError(f"annotation {number}: {error}") from error
        if len(hints) > MOST_HINTS:
            raise HintError(f"has more than {MOST_HINTS} hints; divide the picture, or leave some out")
    return Hints(tuple(hints))


def _annotations(values: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(values, list):
        for each in values:
            yield from _annotations(each)
    elif isinstance(values, Mapping) and values.get("type") == "AnnotationPage":
        yield from _annotations(values.get("items") or [])
    elif isinstance(values, Mapping):
        yield values


def _hint(annotation: Mapping[str, Any], shape_yx: tuple[int, int]) -> Hint | None:
    texts = [text for body in _listed(annotation.get("body")) if (text := _text(body))]
    colour = next((text for text in texts if _is_colour(text)), None)
    if colour is None:
        return None
    creator = next(iter(_listed(annotation.get("creator"))), "")
    return Hint(
        shape=_shape(annotation.get("target"), shape_yx),
        colour=colour,
        author=str(creator.get("name") or creator.get("id") or "") if isinstance(creator, Mapping) else str(creator),
        date=str(annotation.get("created") or ""),
        source=" ".join(" ".join(text for text in texts if text != colour).split()),
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(body: Any) -> str:
    value = body.get("value") if isinstance(body, Mapping) else body
    return value.strip() if isinstance(value, str) else ""


def _is_colour(text: str) -> bool:
    try:
        lab_of(text)
    except HintError as error:
        if "outside sRGB" in str(error):
            raise
        return False
    return True


def _shape(target: Any, shape_yx: tuple[int, int]) -> Shape:
    for each in _listed(target):
        if isinstance(each, str):
            return _rectangle(each, shape_yx)
        selectors = _listed(each.get("selector")) if isinstance(each, Mapping) else []
        for selector in selectors or [{"type": "FragmentSelector", "value": str(_id_of(each))}]:
            kind = selector.get("type") if isinstance(selector, Mapping) else None
            if kind == "SvgSelector":
                return _of_svg(str(selector.get("value")))
            if kind == "FragmentSelector":
                return _rectangle(str(selector.get("value")), shape_yx)
            if kind == "PointSelector":
                return Shape("points", ((_float(selector.get("x")), _float(selector.get("y"))),))
    raise HintError("has no place: neither xywh nor an SVG nor a point; leave it out")


def _id_of(target: Any) -> Any:
    return target.get("id") if isinstance(target, Mapping) else target


def _rectangle(text: str, shape_yx: tuple[int, int]) -> Shape:
    found = _XYWH.search(text)
    if found is None:
        raise HintError(f"{text!r:.60} has no xywh=X,Y,WIDTH,HEIGHT; give it")
    x, y, w, h = (_float(each) for each in found.groups()[1:])
    if found[1] == "percent:":
        height, width = shape_yx
        x, y, w, h = x * width / 100, y * height / 100, w * width / 100, h * height / 100
    if w <= 0 or h <= 0:
        raise HintError(f"{found[0]}: is empty; give a width and a height above 0")
    return Shape("boxes", ((x, y, w, h),))


def _float(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise HintError(f"{value!r:.40} is no number") from error
    if not abs(number) < 2**28:
        raise HintError(f"{value!r:.40} is no pixel of a scan")
    return number


def _of_svg(text: str) -> Shape:
    if "<!" in text:
        raise HintError("its SVG declares entities or the like, which a polygon does not need; give the polygon alone")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise HintError(f"its SVG is not readable ({error}); give one polygon") from error
    for element in root.iter():
        if element.get("transform"):
            raise HintError("its SVG has a transform; give the scan's own pixels")
        name = element.tag.rpartition("}")[2]
        if name == "polygon":
            return _polygon(re.findall(_NUMBER, element.get("points") or ""))
        if name == "path":
            return _polygon(_of_path(element.get("d") or ""))
        if name == "rect":
            return Shape("boxes", (tuple(_float(element.get(key)) for key in ("x", "y", "width", "height")),))
    raise HintError("its SVG has no polygon, path or rect; give one of them")


def _polygon(numbers: list[Any]) -> Shape:
    if len(numbers) < 6 or len(numbers) % 2:
        raise HintError(f"its polygon has {len(numbers) / 2:g} corners; give three or more")
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return Shape("polygon", tuple((_float(x), _float(y)) for x, y in pairs))


def _of_path(text: str) -> list[float]:
    """Coordinates of the corners of one closed line of straight pieces."""
    tokens = re.findall(rf"[A-Za-z]|{_NUMBER}", text)
    corners, x, y, command, at = list[float](), 0.0, 0.0, "", 0
    while at < len(tokens):
        if tokens[at].isalpha():
            command, at = tokens[at], at + 1
            if command in "Zz":
                break
            if command.upper() not in ("M", "L", "H", "V"):
                raise HintError(f"its path has a curve ({command}); give straight lines")
        numbers, (from_x, from_y) = 1 if command in "HhVv" else 2, (x, y) if command.islower() else (0.0, 0.0)
        given = [_float(each) for each in tokens[at : at + numbers]]
        if not command or len(given) < numbers:
            raise HintError("its path is cut off; give straight lines")
        if command in "Hh":
            x = from_x + given[0]
        elif command in "Vv":
            y = from_y + given[0]
        else:
            x, y = from_x + given[0], from_y + given[1]
        corners += [x, y]
        at += numbers
    if any(token in "Mm" for token in tokens[at:]):
        raise HintError("its path has several parts; give one polygon each")
    return corners
