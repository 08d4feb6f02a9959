"""How the desk answers: in JSON, with one line for what is refused, and nothing of this machine's paths in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from flows.review.desk import Desk, Item
from flows.review.guard import BODY_LIMIT_BYTES
from pipeline.errors import ColorizeError, SidecarError, UsageError
from pipeline.support.names import shown

# The addresses of pictures name version and time of the result, so that they may be kept; lists may not.
KEPT, FRESH = {"cache-control": "private, max-age=86400, immutable"}, {"cache-control": "no-store"}
_log = logging.getLogger(__name__)

Answer = Callable[[Request], Response]
Change = Callable[[Mapping[str, Any]], Any]


class RefusedError(Exception):
    """A request that makes no sense; the first argument is the status."""


def asked(desk: Desk, answer: Answer) -> Callable[[Request], Any]:
    """An endpoint that answers what it is asked for."""

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(_safely, desk, answer, request)

    return endpoint


def told(desk: Desk, change: Change) -> Callable[[Request], Any]:
    """An endpoint that is told, as a JSON object, to change something, and answers in JSON what it is then."""

    def answer(body: bytes, _: Request) -> Response:
        try:
            given = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, "no JSON") from error
        if not isinstance(given, dict):
            raise RefusedError(400, "no object")
        return JSONResponse(change(given), headers=FRESH)

    async def endpoint(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > BODY_LIMIT_BYTES:
                return _problem(413, "too long")
        return await run_in_threadpool(_safely, desk, partial(answer, body), request)

    return endpoint


def item_of(desk: Desk, request: Request) -> Item:
    """The scan that a request names. Raises KeyError."""
    return desk.item(request.query_params.get("scan", ""))


def seen_item(desk: Desk, given: Mapping[str, Any]) -> Item:
    """The scan that is to be changed, whose colours are those that the person saw.

    Raises
    ------
    KeyError : no such scan. UsageError : it has other colours by now, or the desk is for looking only
    """
    if desk.read_only:
        raise UsageError("this desk was opened to look only (--read-only); nothing was changed")
    item = desk.item(text_of(given, "scan"))
    if text_of(given, "version") != item.version or not item.version:
        raise UsageError(f"{item.stem}: its colours have changed meanwhile; look at them first")
    return item


def text_of(given: Mapping[str, Any], name: str, default: str = "") -> str:
    """A text of a request. Raises RefusedError."""
    value = given.get(name, default)
    if not isinstance(value, str):
        raise RefusedError(400, f"{name} is no text")
    return value


def _safely(desk: Desk, answer: Answer, request: Request) -> Response:
    """The answer, or what a request that fails is told: one line, with no path of this machine."""
    try:
        return answer(request)
    except RefusedError as refused:
        return _problem(int(refused.args[0]), str(refused.args[1]))
    except LookupError:
        return _problem(404, "no such scan, version or tile")
    except SidecarError as error:
        _log.info("%s", error)
        return _problem(409, "its sidecar cannot be read; run verify on it")
    except UsageError as error:
        return _problem(400, str(error).replace(f"{desk.output}/", "").replace(str(desk.output), desk.output.name))
    except ColorizeError as error:
        _log.info("%s", error)
        return _problem(409, "its picture or its store cannot be read; run verify on it")
    except Exception:
        _log.exception("a request of the review desk failed: %s", request.url.path)
        return _problem(500, "this failed; the terminal where the desk was started says why")


def _problem(status: int, message: str) -> Response:
    return JSONResponse({"problem": shown(message)}, status, headers=FRESH)
