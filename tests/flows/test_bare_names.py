"""``prefect deployment run colorize-archive``, typed as it stands, beside a server that this project did not start."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SET_UP = "from flows.service.profiles import accept_bare_names; print(accept_bare_names())"
pytestmark = pytest.mark.e2e


def python(home, folder, *words):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "COLUMNS": "200",
    }
    ran = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    return ran.stdout + ran.stderr


def test_in_this_folder_the_name_is_looked_up(tmp_path):
    said = python(tmp_path, ROOT, "-m", "prefect", "deployment", "run", "colorize-archive")
    assert "the Prefect server http://127.0.0.1:9/api" in said
    assert "Traceback" not in said
    assert "Invalid deployment name" not in said


def test_elsewhere_the_deployment_script_sets_it_up_in_the_active_profile(tmp_path):
    home, folder = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    folder.mkdir()
    assert "with the profile ephemeral" in python(home, folder, "-c", SET_UP)
    profiles = tomllib.loads((home / "profiles.toml").read_text())
    assert profiles["profiles"]["ephemeral"]["PREFECT_PLUGINS_ENABLED"] == "True"
    assert "works here" in python(home, folder, "-c", SET_UP)
