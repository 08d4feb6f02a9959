"""Prefect's embedded server, started while everything else still loads.

Prefect starts the same server by itself when a flow first needs one, but only after seconds of imports, and imports the
server into the client for it. Started first, it comes up beside those imports. A server that the user has
(``PREFECT_API_URL``, or the active profile) is used as it is.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

START_SECONDS = 120
UP_PROFILE = "colorize-archive"
_POLL_SECONDS = 0.05


class ServerError(RuntimeError):
    """The embedded server did not come up."""


def users_server() -> str | None:
    """Address of the Prefect server that the environment or the active profile names.

    The profile of ``deploy/up`` outlives a power cut, and its server does not: one that is away does not count.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    try:
        profiles = tomllib.loads(path.read_text(encoding="utf-8"))
        active = os.environ.get("PREFECT_PROFILE") or profiles["active"]
        url = str(profiles["profiles"][active]["PREFECT_API_URL"])
    except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError):
        return None
    return url if active != UP_PROFILE or _is_there(url) else None


def _is_there(url: str) -> bool:
    """Whether a machine listens there; whatever it says, it is the user's."""
    address = urllib.parse.urlsplit(url)
    try:
        with socket.create_connection((address.hostname or "", address.port or 80), timeout=5):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Ends with its parent, however that ends: the pipe that is its standard input is then closed.
_SERVER = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
import uvicorn
uvicorn.main(sys.argv[1:])
"""


def _start(port: int) -> subprocess.Popen[bytes]:
    """The command and settings with which Prefect itself starts its temporary server."""
    settings = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    command = [sys.executable, "-c", _SERVER, "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]
    # A session of its own: Ctrl-C is for the command, which then ends the server.
    return subprocess.Popen(
        command,
        env={**os.environ, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(f"Prefect's embedded server ended with code {process.returncode}; check PREFECT_HOME")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_SECONDS)
    raise ServerError(f"Prefect's embedded server did not answer within {START_SECONDS} s; try again")


@contextlib.contextmanager
def embedded_server() -> Iterator[Callable[[], None]]:
    """Start the server for the body, unless the user has one; yields what waits until it answers.

    Raises
    ------
    ServerError : from the yielded function, when the server does not come up.
    """
    if users_server() is not None:
        yield lambda: None
        return
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    process = _start(port)
    os.environ["PREFECT_API_URL"] = url
    try:
        yield lambda: _wait(process, url)
    finally:
        del os.environ["PREFECT_API_URL"]
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
