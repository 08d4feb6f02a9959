"""Who may talk to the review desk: a wrapper around the application that refuses before anything is looked at.

A page from elsewhere that is open in the same browser must not reach the desk: neither by its name bound to this
machine (the Host), nor by a request of its own (Origin, Sec-Fetch-Site). Where others in the house may come, each
request needs the token of the address that was printed.

References
----------
RFC 9110, 7.2 (Host); the Fetch standard (Origin); W3C Fetch Metadata; Content Security Policy 3; OWASP, DNS rebinding.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

COOKIE = "colorize-archive-token"
BODY_LIMIT_BYTES = 64 * 2**10
_QUERY_LIMIT_BYTES = 8192
# The one style that OpenSeadragon 6.1.1 puts into the page, for the focus of its canvas.
_STYLE = "'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
_POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {_STYLE}; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)


@dataclass(frozen=True)
class Guard:
    """An ASGI application in front of ``app``.

    Attributes
    ----------
    host, port : where the server listens
    token : what every request must know; empty for none
    """

    app: App
    host: str
    port: int
    token: str = ""

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        status, headers = self.refusal(scope)
        if status:
            body = _WORDS[status].encode()
            lines = [(b"content-type", b"text/plain; charset=utf-8"), *headers, *HEADERS]
            await send({"type": "http.response.start", "status": status, "headers": lines})
            await send({"type": "http.response.body", "body": body})
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await self.app(scope, receive, guarded)

    def refusal(self, scope: Scope) -> tuple[int, list[tuple[bytes, bytes]]]:
        """The status of a request that is refused, with headers; 0 for one that may pass."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        method, query = scope["method"], bytes(scope.get("query_string", b""))
        hosts, origins = headers.get(b"host", []), headers.get(b"origin", [])
        if len(hosts) != 1 or not self._is_here(hosts[0].decode("latin-1")):
            return 421, []
        if method not in ("GET", "HEAD", "POST") or len(query) > _QUERY_LIMIT_BYTES:
            return 405, []
        own = b"http://" + hosts[0]
        if any(origin != own for origin in origins) or (method == "POST" and len(origins) != 1):
            return 403, []
        site = headers.get(b"sec-fetch-site", [b"same-origin"])[0]
        if site not in (b"same-origin", b"none") and not _is_visit(scope, headers):
            return 403, []
        if method == "POST" and headers.get(b"content-type", [b""])[0].split(b";")[0].strip() != b"application/json":
            return 415, []
        return self._of_token(scope, headers, query)

    def _of_token(
        self, scope: Scope, headers: dict[bytes, list[bytes]], query: bytes
    ) -> tuple[int, list[tuple[bytes, bytes]]]:
        """A visit with the token in its address gets it as a cookie, and an address without it."""
        if not self.token:
            return 0, []
        given = parse_qs(query.decode("latin-1")).get("token", [""])[0] if scope["path"] == "/" else ""
        if given and self._knows(given):
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            return 303, [(b"location", b"/"), (b"set-cookie", cookie.encode())]
        return (0, []) if self._knows(_cookie(headers)) else (401, [])

    def _knows(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def _is_here(self, host: str) -> bool:
        """True if a Host header names this server: by its given name, or a number, which nobody can rebind."""
        name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
        if (port or "80") != str(self.port):
            return False
        name = name.lower().rstrip(".")
        if name in ("localhost", self.host.lower()):
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return bool(self.token) and name in (socket.gethostname().lower(), socket.getfqdn().lower())
        return address.is_loopback or bool(self.token)


def _is_visit(scope: Scope, headers: dict[bytes, list[bytes]]) -> bool:
    """True for a link from elsewhere that somebody followed to the page itself."""
    is_navigation = headers.get(b"sec-fetch-mode") == [b"navigate"] and headers.get(b"sec-fetch-dest") == [b"document"]
    return scope["method"] == "GET" and scope["path"] == "/" and is_navigation


def _cookie(headers: dict[bytes, list[bytes]]) -> str:
    try:
        jar = SimpleCookie(b"; ".join(headers.get(b"cookie", [])).decode("latin-1"))
    except CookieError:
        return ""
    return jar[COOKIE].value if COOKIE in jar else ""


_WORDS = {
    303: "the address without the token",
    401: "the token is missing: open the address that colorize-archive review printed",
    403: "refused: asked by a page from elsewhere",
    405: "refused",
    415: "refused: not JSON",
    421: "refused: this name is not the desk's",
}
