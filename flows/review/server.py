"""The review desk's server: the page, the list, tiles, and decisions, for one folder of results.

Every request names a scan by its name in the list; paths are made from the list alone (:mod:`flows.review.desk`).
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flows import sharing
from flows.review import changing
from flows.review.answers import FRESH, KEPT, Answer, RefusedError, asked, item_of, text_of, told
from flows.review.correcting import Corrections
from flows.review.desk import FILTERS, Desk, Query
from flows.review.guard import Guard
from flows.review.pictures import TILE_PX, Pictures
from flows.review.trying import TRIED, Trials
from flows.review.work import Work
from pipeline.colour.grading import Grade
from pipeline.errors import UsageError
from pipeline.results.decisions import JUDGEMENTS
from pipeline.results.sidecar import Sidecar
from pipeline.support.names import shown

PAGE = Path(__file__).parent / "page"
# One copy for this page and for published sites.
_VIEWER = ("openseadragon.min.js", "openseadragon-licence.txt")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_MOST_LEVELS, _MOST_TILES = 40, 10**6


def application(desk: Desk, pictures: Pictures) -> Starlette:
    """The application, to be put behind a :class:`flows.review.guard.Guard`."""
    shared = Path(sharing.__file__).parent / "page"
    paths = [*(path for path in PAGE.iterdir() if path.suffix in _TYPES), *(shared / name for name in _VIEWER)]
    files = {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in paths}

    def page(request: Request) -> Response:
        name = request.path_params.get("name", "review.html")
        if name not in files:
            raise RefusedError(404, "no such file")
        data, kind = files[name]
        return Response(data, headers={"content-type": kind, "cache-control": "no-cache"})

    corrections = Corrections(desk)
    work = Work(desk.output, desk.refresh)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        work.close()
        pictures.close()

    answers: dict[str, Answer] = {
        "/": page,
        "/page/{name}": page,
        "/api/folder": partial(_folder, desk),
        "/api/scans": partial(_scans, desk),
        "/api/scan": partial(_scan, desk, pictures),
        "/api/hints": partial(changing.hints, desk, corrections),
        "/api/look": partial(changing.look, desk, corrections),
        "/api/place": partial(changing.place, desk, corrections),
        "/api/lightness": partial(changing.lightness, desk, corrections, pictures),
        "/api/seams": partial(changing.seams, desk, corrections),
        "/api/series": partial(_series, desk),
        "/api/orders": partial(changing.orders, work),
        "/small/{side}": partial(_small, desk, pictures),
        "/tile/{side}/{level}/{x}/{y}": partial(_tile, desk, pictures, Trials(desk, corrections)),
        "/doubt": partial(_doubt, desk, pictures),
    }
    changes: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "/api/decide": partial(_decide, desk),
        "/api/hint": partial(changing.hint, desk, corrections),
        "/api/order": partial(changing.order, desk, corrections, work),
        "/api/restore": partial(changing.put_back, desk),
    }
    return Starlette(
        routes=[
            *(Route(path, asked(desk, answer), methods=["GET"]) for path, answer in answers.items()),
            *(Route(path, told(desk, change), methods=["POST"]) for path, change in changes.items()),
        ],
        lifespan=lifespan,
    )


def _folder(desk: Desk, _: Request) -> Response:
    policy = desk.policy
    about = {
        "folder": shown(desk.output.name),
        "software": f"colorize-archive {version('colorize-archive')}",
        "readOnly": desk.read_only,
        "approvals": policy.approvals,
        "people": len(policy.people),
        "rules": [rule.name for rule in policy.rules],
        "folders": desk.folders(),
        "filters": FILTERS,
        "tile": TILE_PX,
    }
    return JSONResponse(about, headers=FRESH)


def _series(desk: Desk, _: Request) -> Response:
    return JSONResponse({"series": desk.series()}, headers=FRESH)


def _scans(desk: Desk, request: Request) -> Response:
    items, count, counts = desk.chosen(Query.of(request.query_params.items()))
    told = {"count": count, "counts": counts, "scans": [each.to_json() for each in items]}
    return JSONResponse(told, headers=FRESH)


def _scan(desk: Desk, pictures: Pictures, request: Request) -> Response:
    """One scan: its sizes, its versions, what was said of it."""
    item = item_of(desk, request)
    wanted = request.query_params.get("version", "") or item.version
    told = {**item.to_json(), "kept": item.kept, "shown": wanted}
    if not item.version:
        return JSONResponse({**told, "levels": [], "decisions": []}, headers=FRESH)
    path = desk.sidecar(item, wanted)
    sidecar = Sidecar.read(path)
    said = [{**each.to_json(), "current": each.is_on(item.version, item.sha256)} for each in desk.decisions(item)]
    for each in said:
        each.pop("premis")
    told["decisions"] = said
    told["levels"] = [[width, height] for height, width in pictures.sizes(path)]
    told["stamp"] = f"{sidecar.version} {sidecar.finished}"
    told["details"] = _details(sidecar)
    told["made"] = _made_with(sidecar)
    return JSONResponse(told, headers=FRESH)


def _made_with(sidecar: Sidecar) -> dict[str, float]:
    """Where the sliders stand for the colours that are there."""
    spec = sidecar.spec
    grade = (spec.grade if spec else None) or Grade()
    return {"vivid": spec.vivid if spec else 0.0, "saturation": grade.saturation, "warmth": grade.warmth}


def _details(sidecar: Sidecar) -> list[list[str]]:
    """Lines for people: what and value."""
    source, figures, spec = sidecar.source, sidecar.figures, sidecar.spec
    lines: list[list[str]] = []
    if source is not None:
        colours = "RGB" if source.channels == 3 else "gray"
        lines += [
            ["Scan", source.name],
            ["Size", f"{source.width_px} x {source.height_px} px, {colours}, {source.dtype}"],
        ]
        lines += [["Keywords", ", ".join(source.metadata["keywords"])]] if source.metadata.get("keywords") else []
        lines += [["Number", ", ".join(source.metadata["numbers"])]] if source.metadata.get("numbers") else []
    if spec is not None:
        lines += [["Model", spec.model], ["Version", spec.version]]
    if figures is not None and figures.doubt is not None:
        lines.append(["Colours", str(figures.doubt)])
    if figures is not None and figures.seam is not None:
        lines.append(["Seam score", f"{figures.seam:.2f} (1 shows no grid)"])
    lines.append(["Finished", sidecar.finished])
    return [[name, shown(value)] for name, value in lines]


def _side(request: Request) -> Any:
    side = request.path_params["side"]
    if side not in ("scan", "colour"):
        raise RefusedError(404, "no such side")
    return side


def _small(desk: Desk, pictures: Pictures, request: Request) -> Response:
    item = item_of(desk, request)
    if not item.version:
        raise LookupError(item.stem)
    data = pictures.small(item.stem, desk.sidecar(item), _side(request))
    return Response(data, headers={"content-type": "image/jpeg", **KEPT})


def _tile(desk: Desk, pictures: Pictures, trials: Trials, request: Request) -> Response:
    item, numbers = item_of(desk, request), []
    for name, most in (("level", _MOST_LEVELS), ("x", _MOST_TILES), ("y", _MOST_TILES)):
        text = request.path_params[name]
        if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) < most):
            raise RefusedError(404, "no such tile")
        numbers.append(int(text))
    given = {name: value for name in TRIED if (value := request.query_params.get(name)) is not None}
    trial = trials.of(item, request.query_params.get("version", ""), given)
    level, x, y = numbers
    data = pictures.tile(trial.sidecar, _side(request), level, x, y, trial.changes, trial.turn)
    return Response(data, headers={"content-type": "image/jpeg", **KEPT})


def _doubt(desk: Desk, pictures: Pictures, request: Request) -> Response:
    item = item_of(desk, request)
    data = pictures.doubt(desk.sidecar(item, request.query_params.get("version", "")))
    return Response(data, headers={"content-type": "image/png", **KEPT})


def _decide(desk: Desk, given: Mapping[str, Any]) -> dict[str, Any]:
    names = ("scan", "decision", "person", "version", "reason", "note")
    scan, decision, person, seen, reason, note = (text_of(given, name) for name in names)
    if decision not in JUDGEMENTS or not seen:
        raise RefusedError(400, "no decision")
    return desk.decide(scan, decision, person, seen, reason, note).to_json()


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UsageError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{host}:{port}: cannot be listened on ({reason}); give another --port or --host") from error
    return made


def serve(desk: Desk, listening: socket.socket, host: str, token: str, started: Callable[[], None]) -> None:
    """Serve until the process is told to stop; ``started`` is called as soon as requests are answered."""
    port = listening.getsockname()[1]
    app = Guard(application(desk, Pictures(desk.output)), host, port, token)
    config = uvicorn.Config(app, log_level="warning", lifespan="on", server_header=False, date_header=False, ws="none")

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started()

    Server(config).run(sockets=[listening])
