"""A review desk that is served to a real browser."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from flows.review.desk import Desk
from flows.review.guard import Guard
from flows.review.pictures import Pictures
from flows.review.server import application, bound
from tests.chromium import Browser, chromium
from tests.patience import PATIENCE_SECONDS


@contextlib.contextmanager
def serving(output: Path, read_only: bool = False) -> Iterator[str]:
    """Address of a desk for a folder."""
    listening = bound("127.0.0.1", 0)
    port = listening.getsockname()[1]
    app = Guard(application(Desk(output, read_only), Pictures(output)), "127.0.0.1", port)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)


@contextlib.contextmanager
def desk_browser(profile: Path) -> Iterator[Browser]:
    """A browser that tells what goes wrong on the desk's page."""
    with chromium(profile, "the review desk") as opened:
        for domain in ("Runtime", "Log", "Page", "Network"):
            opened.call(f"{domain}.enable")
        yield opened
