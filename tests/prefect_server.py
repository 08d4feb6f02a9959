"""A Prefect server of a test's own, a process that serves the flow from it, and what both say."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from engines.cache import cache_folder
from engines.errors import EngineError
from tests.patience import PATIENCE_SECONDS

# By its module: the flow's parameters are typed in another one, which a file that is loaded alone does not find.
_SERVE = """
from prefect import serve
from prefect.deployments.runner import EntrypointType
from flows.orchestration.colorize import colorize_archive
serve(colorize_archive.to_deployment("colorize-archive", entrypoint_type=EntrypointType.MODULE_PATH))
"""


@dataclass(frozen=True)
class Server:
    """A running server: the environment for its clients, and questions to it."""

    url: str
    environment: Mapping[str, str]

    def post(self, path: str, **body: Any) -> Any:
        answer = self._request("POST", path, json=body)
        return answer.json() if answer.content else None

    def get(self, path: str) -> Any:
        return self._request("GET", path).json()

    def delete(self, path: str) -> None:
        self._request("DELETE", path)

    def _request(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Again where the server says that its database is busy, as Prefect's own client does."""
        for _ in range(20):
            answer = httpx.request(method, f"{self.url}{path}", timeout=PATIENCE_SECONDS, **given)
            if answer.status_code != 503:
                break
            time.sleep(0.5)
        answer.raise_for_status()
        return answer

    def artifacts(self, flow_run: str) -> list[dict[str, Any]]:
        """Of a flow run, the first one first."""
        wanted = {"flow_run_id": {"any_": [flow_run]}}
        return self.post("/artifacts/filter", artifacts=wanted, sort="ID_DESC", limit=200)[::-1]

    def flow_runs(self) -> list[dict[str, Any]]:
        """All, the last one first."""
        return self.post("/flow_runs/filter", sort="START_TIME_DESC", limit=200)

    def logs(self, flow_run: str) -> list[dict[str, Any]]:
        wanted = {"flow_run_id": {"any_": [flow_run]}}
        return self.post("/logs/filter", logs=wanted, sort="TIMESTAMP_ASC", limit=200)

    def started(self, state: dict[str, Any] | None = None, **parameters: Any) -> str:
        """A run of the served deployment, in ``state`` where it is given; its id."""
        deployment = self.get("/deployments/name/colorize-archive/colorize-archive")["id"]
        wanted = {"parameters": parameters, **({"state": state} if state else {})}
        return str(self.post(f"/deployments/{deployment}/create_flow_run", **wanted)["id"])

    def ended(self, flow_run: str) -> dict[str, Any]:
        """The state of a run when it is over."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            state = self.get(f"/flow_runs/{flow_run}")["state"]
            if state["type"] in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED"):
                return state
            time.sleep(0.3)
        raise AssertionError(f"not over after {PATIENCE_SECONDS} s: {state}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[Server]:
    """Start a server whose database lies in ``home``, for the body."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "COLUMNS": "200",
    }
    has_copy = _copied(home / "prefect.db")  # to make the tables takes half of the start
    words = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            assert process.poll() is None, "the server ended"
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                    break
            time.sleep(0.2)
        if not has_copy:
            _keep_copy(home / "prefect.db")
        yield Server(url, {**environment, "PREFECT_API_URL": url})
    finally:
        _end(process)


@contextlib.contextmanager
def serving(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the deployment colorize-archive/colorize-archive for the body."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE],
        env=dict(server.environment),
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            assert process.poll() is None, "nothing is served"
            with contextlib.suppress(httpx.HTTPError):
                server.get("/deployments/name/colorize-archive/colorize-archive")
                break
            time.sleep(0.3)
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _kept() -> Path:
    """Path of the empty database kept for this Prefect release. Raises EngineError."""
    return cache_folder("prefect") / f"{version('prefect')}.db"


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
