"""Prefect's embedded server, started while everything else still loads.

Prefect starts the same server by itself when a flow first needs one, but only after seconds of imports, and imports the
server into the client for it. Started first, it comes up in parallel with those imports. A server of the user
(``PREFECT_API_URL``, or the active profile) is used as it is.

The embedded server has its own home and database, which are deleted after the run. The user's (``~/.prefect``) may be
damaged, from another Prefect release, read-only, in use by another run, or a site's PostgreSQL; and everything that a
run would leave there is in its output folder too. Other Prefect settings are ignored as well: they are meant for the
user's own server and flows, and each may break this one (a password for the server, a missing certificate file).
Prefect needs seconds to make an empty database, so one is kept for later runs.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from engines.cache import cache_folder
from engines.errors import EngineError
from flows.environment import NOT_TOLD, without_proxies
from flows.events import warn
from flows.orchestration.waiting import Progress, last_words
from flows.run.temporary_folder import PREFIX

UP_PROFILE = "colorize-archive"
_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 60.0
_KIND = "prefect"
# Prefect settings in the environment that stay: the command itself sets them unless the user has.
_KEPT = (
    "PREFECT_LOGGING_LEVEL",
    "PREFECT_LOGGING_TO_API_ENABLED",
    "PREFECT_SERVER_API_MAX_PARAMETER_SIZE",
    *NOT_TOLD,
)
# A missing certificate file ends every client, even one that talks to a server without TLS.
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
# On a machine busy with other work an answer may take minutes; nothing else needs the time-outs to be short.
_PATIENT = {
    "PREFECT_API_REQUEST_TIMEOUT": "600",
    "PREFECT_API_DATABASE_TIMEOUT": "600",
    "PREFECT_API_DATABASE_CONNECTION_TIMEOUT": "600",
}


class ServerError(RuntimeError):
    """The embedded server did not come up."""


def users_server() -> str | None:
    """Address of the Prefect server that the environment or the active profile names.

    The profile of ``deploy/up`` survives a power cut, but its server does not: it counts only if it listens.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    try:
        home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
        path = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
        profiles = tomllib.loads(path.read_text(encoding="utf-8"))
        active = os.environ.get("PREFECT_PROFILE") or profiles["active"]
        url = str(profiles["profiles"][active]["PREFECT_API_URL"])
    except (OSError, RuntimeError, KeyError, TypeError, ValueError):  # the second: a user without a home
        return None
    return url if active != UP_PROFILE or _is_there(url) else None


def _is_there(url: str) -> bool:
    """True if anything listens at ``url``; whatever it is, it is the user's."""
    try:
        address = urllib.parse.urlsplit(url)
        with socket.create_connection((address.hostname or "", address.port or 80), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Ends with its parent, however that ends: its standard input is a pipe, which is then closed.
_SERVER = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
import uvicorn
uvicorn.main(sys.argv[1:])
"""


@contextlib.contextmanager
def embedded_server() -> Iterator[Callable[[], None]]:
    """Start the server for the body, unless the user has one; yields a function that waits until it answers.

    Raises
    ------
    ServerError : from the yielded function, when the server does not come up.
    """
    if users_server() is not None:
        yield lambda: None
        return
    port = _free_port()
    with (
        tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder,
        _environment(Path(folder), port),
    ):
        server = _Server(Path(folder), port)
        server.start()
        try:
            yield server.wait
        finally:
            server.end()


@contextlib.contextmanager
def _environment(home: Path, port: int) -> Iterator[None]:
    """For the body, set up the environment of this process and its children: Prefect's defaults, and our server."""
    before = dict(os.environ)
    for name in _foreign(before):
        del os.environ[name]
    without_proxies(os.environ)
    os.environ |= {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api", **_PATIENT}
    try:
        Path.home()
    except RuntimeError:  # the user id has no account, and libraries that ask for the home would fail
        os.environ["HOME"] = str(home)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ |= before


def _foreign(environment: Mapping[str, str]) -> list[str]:
    settings = [name for name in environment if name.startswith("PREFECT_") and name not in _KEPT]
    return settings + [name for name in _CERTIFICATES if name in environment and not Path(environment[name]).exists()]


class _Server:
    """The server process, its folder and its log."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port = folder, port
        self._process: subprocess.Popen[bytes] | None = None
        self._has_copy = False

    @property
    def _database(self) -> Path:
        return self._folder / "prefect.db"

    def start(self, with_copy: bool = True) -> None:
        """Start the process with the same command and settings as Prefect's own temporary server."""
        self._has_copy = with_copy and _copied(self._database)
        settings = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        command = [sys.executable, "-c", _SERVER, "--factory", "prefect.server.api.server:create_app"]
        command += ["--host", "127.0.0.1", "--port", str(self._port), "--log-level", "error", "--lifespan", "on"]
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C is for the command, which then ends the server. A folder of its own: Prefect
            # reads settings from files in the current folder.
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": _absolute(os.environ.get("PYTHONPATH", "")), **settings},
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    def wait(self) -> None:
        """Wait until the server answers, as long as it is alive and makes progress. Raises ServerError."""
        assert self._process is not None
        progress = Progress(self._process.pid, _tell)
        while not self._answers():
            if (code := self._process.poll()) is not None:
                if not self._has_copy:
                    raise ServerError(f"Prefect's embedded server ended with code {code}: {self._last_words()}")
                _forget_copy()
                self._database.unlink(missing_ok=True)
                self.start(with_copy=False)
                progress = Progress(self._process.pid, _tell)
            if progress.is_stuck():
                raise ServerError(f"Prefect's embedded server {progress.in_words}: {self._last_words()}")
            time.sleep(_POLL_SECONDS)
        if not self._has_copy:
            _keep_copy(self._database)

    def _answers(self) -> bool:
        # The environment has no proxies, but the caller may have set some since.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self._port}/api/health", timeout=_ANSWER_SECONDS):
                return True
        except (urllib.error.URLError, OSError, http.client.HTTPException):
            return False

    def _last_words(self) -> str:
        try:
            return last_words(self._log.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return last_words("")

    def end(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _tell(seconds: float) -> None:
    warn(f"Prefect's server has not started in {seconds:.0f} s; this machine is busy, or slow", "waiting")


def _absolute(paths: str) -> str:
    """A search path with absolute folders, for a process that runs in another folder."""
    return os.pathsep.join(str(Path(path).absolute()) for path in paths.split(os.pathsep) if path)


def _kept() -> Path:
    """Path of the empty database kept for this Prefect release. Raises EngineError."""
    return cache_folder(_KIND) / f"{version('prefect')}.db"


def _copied(database: Path) -> bool:
    """Copy the kept database to ``database``; True if the copy exists and is sound."""
    with contextlib.suppress(EngineError, OSError, sqlite3.Error):
        shutil.copyfile(_kept(), database)
        with contextlib.closing(sqlite3.connect(database)) as opened:
            if opened.execute("PRAGMA quick_check").fetchone() == ("ok",):
                return True
    with contextlib.suppress(EngineError, OSError):
        database.unlink(missing_ok=True)
    return False


def _keep_copy(database: Path) -> None:
    """Keep an unused database for later runs; if that fails, they only take seconds longer."""
    with contextlib.suppress(EngineError, OSError, sqlite3.Error):
        target = _kept()
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            with (
                contextlib.closing(sqlite3.connect(database)) as source,
                contextlib.closing(sqlite3.connect(part)) as copy,
            ):
                source.backup(copy)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)


def _forget_copy() -> None:
    with contextlib.suppress(EngineError, OSError):
        _kept().unlink(missing_ok=True)
