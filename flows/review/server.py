"""The review desk's server: the page, the list, tiles, and decisions, for one folder of results.

Every request names a scan by its name in the list; paths are made from the list alone (:mod:`flows.review.desk`).
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flows import sharing
from flows.review.desk import FILTERS, Desk, Item, Query
from flows.review.guard import BODY_LIMIT_BYTES, Guard
from flows.review.pictures import TILE_PX, Pictures
from pipeline.colour.grading import Grade
from pipeline.errors import ColorizeError, SidecarError, UsageError
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
# The addresses of pictures name version and time of the result, so that they may be kept; lists may not.
_KEPT, _FRESH = {"cache-control": "private, max-age=86400, immutable"}, {"cache-control": "no-store"}
_MOST_LEVELS, _MOST_TILES = 40, 10**6
_log = logging.getLogger(__name__)

Answer = Callable[[Request], Response]


class _RefusedError(Exception):
    """A request that makes no sense; the first argument is the status."""


def application(desk: Desk, pictures: Pictures) -> Starlette:
    """The application, to be put behind a :class:`flows.review.guard.Guard`."""
    shared = Path(sharing.__file__).parent / "page"
    paths = [*(path for path in PAGE.iterdir() if path.suffix in _TYPES), *(shared / name for name in _VIEWER)]
    files = {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in paths}

    def page(request: Request) -> Response:
        name = request.path_params.get("name", "review.html")
        if name not in files:
            raise _RefusedError(404, "no such file")
        data, kind = files[name]
        return Response(data, headers={"content-type": kind, "cache-control": "no-cache"})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        pictures.close()

    routes: dict[str, Answer] = {
        "/": page,
        "/page/{name}": page,
        "/api/folder": partial(_folder, desk),
        "/api/scans": partial(_scans, desk),
        "/api/scan": partial(_scan, desk, pictures),
        "/small/{side}": partial(_small, desk, pictures),
        "/tile/{side}/{level}/{x}/{y}": partial(_tile, desk, pictures),
        "/doubt": partial(_doubt, desk, pictures),
    }
    made = [Route(path, _answering(answer), methods=["GET"]) for path, answer in routes.items()]
    return Starlette(
        routes=[*made, Route("/api/decide", _deciding(desk), methods=["POST"])],
        lifespan=lifespan,
    )


def _answering(answer: Answer) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(_safely, answer, request)

    return endpoint


def _safely(answer: Answer, request: Request) -> Response:
    """The answer, or what a request that fails is told: one line, with no path of this machine."""
    try:
        return answer(request)
    except _RefusedError as refused:
        return _problem(int(refused.args[0]), str(refused.args[1]))
    except LookupError:
        return _problem(404, "no such scan, version or tile")
    except SidecarError as error:
        _log.info("%s", error)
        return _problem(409, "its sidecar cannot be read; run verify on it")
    except UsageError as error:
        return _problem(400, str(error))
    except ColorizeError as error:
        _log.info("%s", error)
        return _problem(409, "its picture cannot be read; run verify on it")
    except Exception:
        _log.exception("a request of the review desk failed: %s", request.url.path)
        return _problem(500, "this failed; the terminal where the desk was started says why")


def _problem(status: int, message: str) -> Response:
    return JSONResponse({"problem": shown(message)}, status, headers=_FRESH)


def _folder(desk: Desk, _: Request) -> Response:
    policy = desk.policy
    told = {
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
    return JSONResponse(told, headers=_FRESH)


def _scans(desk: Desk, request: Request) -> Response:
    items, count, counts = desk.chosen(Query.of(request.query_params.items()))
    told = {"count": count, "counts": counts, "scans": [each.to_json() for each in items]}
    return JSONResponse(told, headers=_FRESH)


def _item(desk: Desk, request: Request) -> Item:
    return desk.item(request.query_params.get("scan", ""))


def _scan(desk: Desk, pictures: Pictures, request: Request) -> Response:
    """One scan: its sizes, its versions, what was said of it."""
    item = _item(desk, request)
    wanted = request.query_params.get("version", "") or item.version
    told = {**item.to_json(), "kept": item.kept, "shown": wanted}
    if not item.version:
        return JSONResponse({**told, "levels": [], "decisions": []}, headers=_FRESH)
    path = desk.sidecar(item, wanted)
    sidecar = Sidecar.read(path)
    said = [{**each.to_json(), "current": each.is_on(item.version, item.sha256)} for each in desk.decisions(item)]
    for each in said:
        each.pop("premis")
    told["decisions"] = said
    told["levels"] = [[width, height] for height, width in pictures.sizes(path)]
    told["stamp"] = f"{sidecar.version} {sidecar.finished}"
    told["details"] = _details(sidecar)
    return JSONResponse(told, headers=_FRESH)


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
        raise _RefusedError(404, "no such side")
    return side


def _small(desk: Desk, pictures: Pictures, request: Request) -> Response:
    item = _item(desk, request)
    if not item.version:
        raise LookupError(item.stem)
    data = pictures.small(item.stem, desk.sidecar(item), _side(request))
    return Response(data, headers={"content-type": "image/jpeg", **_KEPT})


def _tile(desk: Desk, pictures: Pictures, request: Request) -> Response:
    item, numbers = _item(desk, request), []
    for name, most in (("level", _MOST_LEVELS), ("x", _MOST_TILES), ("y", _MOST_TILES)):
        text = request.path_params[name]
        if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) < most):
            raise _RefusedError(404, "no such tile")
        numbers.append(int(text))
    path = desk.sidecar(item, request.query_params.get("version", ""))
    grade = Grade.parse(request.query_params.get("saturation"), request.query_params.get("warmth"))
    level, x, y = numbers
    data = pictures.tile(path, _side(request), level, x, y, grade)
    return Response(data, headers={"content-type": "image/jpeg", **_KEPT})


def _doubt(desk: Desk, pictures: Pictures, request: Request) -> Response:
    item = _item(desk, request)
    data = pictures.doubt(desk.sidecar(item, request.query_params.get("version", "")))
    return Response(data, headers={"content-type": "image/png", **_KEPT})


def _deciding(desk: Desk) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > BODY_LIMIT_BYTES:
                return _problem(413, "too long")
        return await run_in_threadpool(_safely, partial(_decide, desk, body), request)

    return endpoint


def _decide(desk: Desk, body: bytes, _: Request) -> Response:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _RefusedError(400, "no JSON") from error
    names = ("scan", "decision", "person", "version", "reason", "note")
    values: list[Any] = [given.get(name, "") for name in names] if isinstance(given, dict) else [None]
    if not all(isinstance(value, str) for value in values):
        raise _RefusedError(400, "no decision")
    scan, decision, person, seen, reason, note = values
    if decision not in JUDGEMENTS or not seen:
        raise _RefusedError(400, "no decision")
    item = desk.decide(scan, decision, person, seen, reason, note)
    return JSONResponse(item.to_json(), headers=_FRESH)


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
