"""One set-up for all tests of a file: a real server, worker and deployments, as ``deploy/up`` starts them."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
UP = ROOT / "deploy" / "up"


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line of standard error."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) == 1, self.err
        return lines[0]


@dataclass(frozen=True)
class SetUp:
    """A set-up that runs, and a terminal beside it."""

    home: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return kept | {
            "PREFECT_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)])),
            "COLUMNS": "200",
        }

    def run(self, *words: object, **more: str) -> Ran:
        done = subprocess.run(
            list(map(str, words)),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            env=self.environment | more,
            cwd=self.home,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def up(self, *words: object, **more: str) -> Ran:
        return self.run(sys.executable, UP, *words, **more)

    def prefect(self, *words: object) -> Ran:
        return self.run(sys.executable, "-m", "prefect", *words)

    def api(self, path: str, method: str | None = None, items: list[Any] | None = None, **body: Any) -> Any:
        """Its answer to ``items``, or to what else is given.

        Asked again where the server says that its database is busy, as Prefect's own client does.
        """
        for _ in range(40):
            try:
                return self._answer(path, method, items or body)
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(0.5)
        raise AssertionError(f"{path}: the server was busy all the while")

    def _answer(self, path: str, method: str | None, body: list[Any] | dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}",
            data=json.dumps(body).encode() if body else None,
            headers={"content-type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return json.loads(answer.read() or "null")

    def deployment(self, name: str) -> Any:
        return self.api(f"deployments/name/{name}/{name}")

    def run_that(self, state: str, **wanted: Any) -> Any:
        """The first run of these properties, when it is in ``state``."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        seen = None
        while time.monotonic() < deadline:
            for each in self.api("flow_runs/filter", sort="EXPECTED_START_TIME_DESC"):
                if all(each[name] == value for name, value in wanted.items()):
                    seen = each["state"]
                    if each["state_name"] == state:
                        return each
            time.sleep(0.3)
        raise AssertionError(f"no run {wanted} became {state}; last seen {seen}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def set_up(tmp_path_factory):
    """Each file's own: what one leaves on its server, its schedules or its end, is nothing to another's tests."""
    found = SetUp(tmp_path_factory.mktemp("prefect"), free_port())
    quick = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    started = found.up("--detach", "--port", found.port, PREFECT_SERVER_METRICS_ENABLED="true", **quick)
    assert started.code == 0, started.err
    yield found
    found.up("--stop")


@pytest.fixture(scope="session")
def scans(tmp_path_factory) -> Path:
    """Three small scans."""
    folder = tmp_path_factory.mktemp("scans")
    for number in range(3):
        samples = np.random.default_rng(number).integers(0, 255, (300, 200), dtype=np.uint8)
        tifffile.imwrite(folder / f"scan{number}.tif", samples)
    return folder


@pytest.fixture
def told(set_up):
    """An operator's webhook: waits for the first text for which the given question is true."""
    texts: queue.Queue[str] = queue.Queue()

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            texts.put(json.loads(self.rfile.read(int(self.headers["content-length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        for _ in range(2):  # again is no harm
            made = set_up.run(sys.executable, UP.with_name("notify.py"), url, PREFECT_PROFILE="colorize-archive")
            assert url in made.out, made.err
        assert len(set_up.api("automations/filter", sort="CREATED_DESC")) == 1

        def wait(is_it: Callable[[str], bool]) -> str:
            while not is_it(text := texts.get(timeout=PATIENCE_SECONDS)):
                pass
            return text

        yield wait
        server.shutdown()
