"""``prefect deployment run colorize-archive``, typed as it stands, beside a server that this project did not start."""

import json
import os
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import prefect
import pytest

from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
SET_UP = "from flows.service.profiles import accept_bare_names; print(accept_bare_names())"
pytestmark = pytest.mark.e2e


class NoDeployments(BaseHTTPRequestHandler):
    """A Prefect server that is well and has none."""

    def do_GET(self):
        if self.path.endswith("/version"):
            self._answer(json.dumps(prefect.__version__))
        else:
            self.send_error(404)

    def do_POST(self):
        self._answer("[]")

    def _answer(self, text):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words):
        """Nothing to the terminal."""


def python(home, folder, *words, **more):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "COLUMNS": "200",
    } | more
    ran = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    return ran.stdout + ran.stderr


def test_in_this_folder_the_name_is_looked_up(tmp_path):
    said = python(tmp_path, ROOT, "-m", "prefect", "deployment", "run", "colorize-archive")
    assert "the Prefect server http://127.0.0.1:9/api" in said
    assert "Traceback" not in said
    assert "Invalid deployment name" not in said


def test_the_answer_is_waited_for_longer_than_prefect_waits_for_plugins(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), NoDeployments) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        more = {
            "PREFECT_API_URL": f"http://127.0.0.1:{server.server_port}/api",
            "PREFECT_PLUGINS_SETUP_TIMEOUT_SECONDS": "0.01",
        }
        said = python(tmp_path, ROOT, "-m", "prefect", "deployment", "run", "colorize-archive", **more)
        server.shutdown()
    assert "has none, nothing was started; deploy/up makes them" in said
    assert "Traceback" not in said


def test_elsewhere_the_deployment_script_sets_it_up_in_the_active_profile(tmp_path):
    home, folder = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    folder.mkdir()
    assert "with the profile ephemeral" in python(home, folder, "-c", SET_UP)
    profiles = tomllib.loads((home / "profiles.toml").read_text())
    assert profiles["profiles"]["ephemeral"]["PREFECT_PLUGINS_ENABLED"] == "True"
    assert "works here" in python(home, folder, "-c", SET_UP)
