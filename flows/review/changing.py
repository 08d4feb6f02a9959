"""What the page may ask for beside looking: hints, colours made in the background, versions that are put back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from flows.options import parse_vivid
from flows.review.answers import FRESH, RefusedError, item_of, seen_item, text_of
from flows.review.correcting import Corrections
from flows.review.desk import Desk
from flows.review.measured import lightness_differences, meetings
from flows.review.pictures import Pictures
from flows.review.work import Work
from flows.run.restore import restore
from pipeline.colour.grading import Grade
from pipeline.errors import UsageError


def hints(desk: Desk, corrections: Corrections, request: Request) -> Response:
    """The hints of a scan."""
    return JSONResponse(corrections.told(corrections.subject(item_of(desk, request))), headers=FRESH)


def look(desk: Desk, corrections: Corrections, request: Request) -> Response:
    """Answers when a scan was looked at as a whole, so that the next hint is shown at once."""
    corrections.look(corrections.subject(item_of(desk, request)))
    return JSONResponse({"ready": True}, headers=FRESH)


def place(desk: Desk, corrections: Corrections, request: Request) -> Response:
    """What is at a pixel of a scan."""
    numbers = []
    for name in ("x", "y"):
        text = request.query_params.get(name, "")
        if not (text.isascii() and text.isdigit() and len(text) < 9):
            raise RefusedError(404, "no such pixel")
        numbers.append(int(text))
    found = corrections.place(corrections.subject(item_of(desk, request)), *numbers)
    return JSONResponse(found, headers=FRESH)


def hint(desk: Desk, corrections: Corrections, given: Mapping[str, Any]) -> dict[str, Any]:
    """Add a hint, take one away, or put one back."""
    return corrections.change(corrections.subject(seen_item(desk, given)), given)


def lightness(desk: Desk, corrections: Corrections, pictures: Pictures, request: Request) -> Response:
    """How far the lightness of the result is that of the scan."""
    found = lightness_differences(pictures, corrections.subject(item_of(desk, request)))
    return JSONResponse(found, headers=FRESH)


def seams(desk: Desk, corrections: Corrections, request: Request) -> Response:
    """Where blocks and tiles meet."""
    return JSONResponse(meetings(corrections.subject(item_of(desk, request))), headers=FRESH)


def orders(work: Work, request: Request) -> Response:
    """What is made in the background, and what was."""
    del request
    return JSONResponse({"orders": [each.to_json() for each in work.orders()]}, headers=FRESH)


def order(desk: Desk, corrections: Corrections, work: Work, given: Mapping[str, Any]) -> dict[str, Any]:
    """Have a whole scan coloured with its hints, or with the colours that were tried."""
    item, what = seen_item(desk, given), text_of(given, "what")
    if what == "hints":
        return work.order(item.stem, "its hints", [{}]).to_json()
    if what != "grade":
        raise RefusedError(400, "no such order")
    spec, steps = corrections.subject(item).spec, list[dict[str, float]]()
    numbers = {name: given.get(name) for name in ("vivid", "saturation", "warmth")}
    if any(isinstance(value, bool) or not isinstance(value, int | float | None) for value in numbers.values()):
        raise RefusedError(400, "no number")
    grade = Grade.parse(numbers["saturation"], numbers["warmth"])
    vivid = numbers["vivid"]
    if vivid is not None and parse_vivid(vivid) != spec.vivid:
        steps.append({"vivid": parse_vivid(vivid)})
    if not grade.is_identity or (spec.grade is not None and not steps):
        steps.append({"saturation": grade.saturation, "warmth": grade.warmth})
    if not steps:
        raise UsageError("nothing would change: these are the colours that are there")
    parts = [f"vivid {vivid:g}"] if "vivid" in steps[0] else []
    return work.order(item.stem, ", ".join([*parts, *([] if grade.is_identity else [str(grade)])]), steps).to_json()


def put_back(desk: Desk, given: Mapping[str, Any]) -> dict[str, Any]:
    """Make a kept version the current one again."""
    item, wanted = seen_item(desk, given), text_of(given, "restore")
    if wanted not in item.kept:
        raise KeyError(wanted)
    _, before = restore(desk.output / f"{item.stem}.zarr", wanted)
    desk.refresh()
    return {**desk.item(item.stem).to_json(), "before": before}
