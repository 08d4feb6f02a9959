"""The command ``hint``: colours that are known of places of a scan, written into its file of hints."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import USAGE, stop
from flows.cli.json_output import AsJson, print_json
from pipeline.errors import ColorizeError, HintError, UsageError
from pipeline.support.names import shown

if TYPE_CHECKING:
    from pipeline.hints.model import AsIn, Hint, Hints
    from pipeline.shapes import Shape

_NUMBER = r"-?\d+(?:\.\d+)?"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(hint)


def hint(
    name: Annotated[Path, typer.Argument(help="A scan, a result or a store.")],
    at: Annotated[str | None, typer.Option(help="X,Y: a pixel; with --to a corner.")] = None,
    to: Annotated[str | None, typer.Option(help="X,Y: the opposite corner of a box from --at.")] = None,
    box: Annotated[str | None, typer.Option(help="X,Y,WIDTH,HEIGHT of a box.")] = None,
    polygon: Annotated[str | None, typer.Option(help="X,Y X,Y X,Y ...: the corners of a polygon.")] = None,
    colour: Annotated[
        str | None,
        typer.Option(
            help="#556b2f, a CSS name, lab(42, -18, 31), gray, or the colour of another picture of the results: "
            "'as in PICTURE at X,Y'."
        ),
    ] = None,
    reach: Annotated[
        float | None, typer.Option(help="How far it spreads, in short sides of the scan; 0 is not at all.")
    ] = None,
    author: Annotated[str, typer.Option(help="Who knows it.")] = "",
    source: Annotated[str, typer.Option(help="From what, such as 'museum no. 17, wool tunic'.")] = "",
    remove: Annotated[int | None, typer.Option(help="Take away the hint of this number.")] = None,
    show: Annotated[bool, typer.Option("--list", help="List the hints.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say which colour a place of a scan has; run and reprocess then use it.

    The hints are added to NAME.hints.json beside the scan or result, which is checked as a whole first.
    """
    from pipeline.hints.files import write_hints

    try:
        path, shape_yx, hints = _found(name)
        place = _place(at, to, box, polygon)
        if remove is not None:
            hints = _without(hints, remove, path)
        if (place is None) != (colour is None):
            missing = "a place (--at, --box or --polygon)" if place is None else "--colour"
            raise UsageError(f"{shown(name)}: a hint is a place and its colour; give {missing} too")
        if place is not None and colour is not None:
            hints = hints.with_hint(_made(place, colour, reach, author, source))
        elif remove is None and not show:
            raise UsageError(f"{shown(name)}: nothing to do; give --at and --colour, --remove or --list")
        if place is not None or remove is not None:
            hints.check(shape_yx)
            write_hints(path, hints)
    except ColorizeError as error:
        stop(error, USAGE)
    if as_json:
        print_json("hint", {"file": str(path), "shape_yx": list(shape_yx), "hints": hints.to_json()["hints"]})
        return
    typer.echo(f"{shown(path)}: {len(hints.hints)} hint{'s' * (len(hints.hints) != 1)}")
    for number, each in enumerate(hints.hints if show else (), 1):
        typer.echo(f"{number}: {_line(each)}")


def _found(name: Path) -> tuple[Path, tuple[int, int], Hints]:
    """The file of hints of a scan, result or store; the scan's size; the hints that are there. Raises ColorizeError."""
    from pipeline.hints import ENDING
    from pipeline.hints.files import read_hints
    from pipeline.hints.model import Hints
    from pipeline.readers import open_scan, page_count
    from pipeline.results.sidecar import SIDECAR_ENDING, Sidecar, sidecar_of
    from pipeline.store import ScanStore, is_store

    sidecar = sidecar_of(name)
    if sidecar is not None and sidecar.exists():
        told = Sidecar.read(sidecar)
        shape_yx = told.needed("source", told.whole_source).shape_yx
        path = sidecar.with_name(sidecar.name.removesuffix(SIDECAR_ENDING) + ENDING)
    elif is_store(name):
        shape_yx = ScanStore.open(name).info.shape_yx
        path = name.with_name(name.name.removesuffix(".zarr") + ENDING)
    else:
        if (pages := page_count(name)) > 1:
            raise UsageError(
                f"{shown(name)}: has {pages} pages, and a hint is of one; give the result of that page instead"
            )
        with open_scan(name) as reader:
            shape_yx = reader.info.shape_yx
        path = name.with_name(name.stem + ENDING)
    try:
        hints = read_hints(path, shape_yx) if path.exists() else Hints()
    except HintError as error:
        raise HintError(f"{shown(path)}: {error}") from error
    return path, shape_yx, hints


def _place(at: str | None, to: str | None, box: str | None, polygon: str | None) -> Shape | None:
    """The place that is given; None where none is. Raises UsageError."""
    from pipeline.shapes import Shape

    given = [text for text in (at, box, polygon) if text is not None]
    if len(given) > 1 or (to is not None and at is None):
        raise UsageError("a hint has one place; give --at, or --at and --to, or --box, or --polygon")
    if box is not None:
        x, y, w, h = _numbers(box, 4)
        if w <= 0 or h <= 0:
            raise UsageError(f"--box {box!r}: is empty; give X,Y,WIDTH,HEIGHT, the last two above 0")
        return Shape("boxes", ((x, y, w, h),))
    if polygon is not None:
        corners = tuple(_numbers(corner, 2) for corner in polygon.split())
        if len(corners) < 3:
            raise UsageError(f"--polygon {polygon!r}: has no area; give three corners or more, as 'X,Y X,Y X,Y'")
        return Shape("polygon", corners)
    if at is None:
        return None
    x, y = _numbers(at, 2)
    if to is None:
        return Shape("points", ((x, y),))
    right, low = _numbers(to, 2)
    # Both corners are pixels, and both belong to the box.
    return Shape("boxes", ((min(x, right), min(y, low), abs(right - x) + 1, abs(low - y) + 1),))


def _numbers(text: str, count: int) -> tuple[float, ...]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != count or not all(re.fullmatch(_NUMBER, part) for part in parts):
        raise UsageError(f"{text!r}: not {count} numbers with commas between; give pixels of the scan")
    return tuple(float(part) if "." in part else int(part) for part in parts)


def _made(place: Shape, colour: str, reach: float | None, author: str, source: str) -> Hint:
    """The hint, checked as one of a file is. Raises HintError, UsageError."""
    from pipeline.hints.model import Hint

    today = datetime.now(UTC).date().isoformat()
    return Hint.from_json(Hint(place, _colour(colour), reach, author, today, source).to_json())


def _colour(text: str) -> str | AsIn:
    from pipeline.hints.model import AsIn

    if not (found := re.fullmatch(r"as in (.+) at ([^ ]+)", text.strip())):
        return text
    x, y = _numbers(found[2], 2)
    return AsIn(found[1].strip(), x, y)


def _without(hints: Hints, number: int, path: Path) -> Hints:
    from pipeline.hints.model import Hints

    count = len(hints.hints)
    if not 1 <= number <= count:
        raise UsageError(f"--remove {number}: {shown(path)} has {count} hints; give the number of one (--list)")
    return Hints(hints.hints[: number - 1] + hints.hints[number:])


def _line(hint: Hint) -> str:
    bounds, shape = hint.shape.bounds, hint.shape
    size = f"{bounds.shape_yx[1]}x{bounds.shape_yx[0]}"
    many = len(shape.numbers)
    where = f"{bounds.x0},{bounds.y0}"
    if shape.kind != "points" or many > 1:
        what = {"points": f"{many} points", "boxes": "box" if many == 1 else f"{many} boxes", "polygon": "polygon"}
        where = f"{what[shape.kind]} {where} {size}"
    told = ", ".join(filter(None, (hint.author, hint.date, hint.source)))
    reach = "" if hint.reach is None else f", reach {hint.reach:g}"
    return shown(f"{where}: {hint.colour}{reach}{f' ({told})' if told else ''}")
