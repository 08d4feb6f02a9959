"""The processes of ``compose.yaml``, by its own commands but without containers; and what all its images must have."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.deploy.conftest import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
LASTING = {name: service for name, service in SERVICES.items() if name != "deployments"}


def _answer(url):
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            assert time.monotonic() < deadline, url
            time.sleep(0.2)


@pytest.fixture
def part(tmp_path):
    """Start a service of compose.yaml with other addresses; ended with the test."""
    started = []

    def start(name, **changes):
        words = list(SERVICES[name]["command"])
        for old, new in changes.items():
            words = [word.replace(old.replace("_", "-"), new) for word in words]
        command = [sys.executable, "-m", *(re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in words)]
        started.append(subprocess.Popen(command, cwd=tmp_path, env=os.environ, stderr=subprocess.DEVNULL))

    yield start
    for process in reversed(started):
        process.terminate()
        process.wait(30)


def test_dask_runs_by_these_commands_and_is_there_to_be_scraped(part):
    scheduler, dashboard, worker = (str(free_port()) for _ in range(3))
    part("dask-scheduler", **{"8786": scheduler, "8787": dashboard})
    assert _answer(f"http://127.0.0.1:{dashboard}/health") == "ok"
    part("dask-worker", **{"dask_scheduler:8786": f"127.0.0.1:{scheduler}", "8790": worker, "/tmp": "."})
    assert _answer(f"http://127.0.0.1:{worker}/health") == "ok"
    joined = re.search(r'dask_scheduler_workers\{state="idle"\} 1', _answer(f"http://127.0.0.1:{dashboard}/metrics"))
    assert joined
    assert "dask_worker_threads" in _answer(f"http://127.0.0.1:{worker}/metrics")


@pytest.mark.parametrize("name", LASTING)
def test_services_are_watched_and_pinned_and_not_root(name):
    service = LASTING[name]
    assert service["healthcheck"]["test"]
    assert re.search(r":\d+\.\d+", service["image"])
    if "build" not in service:
        assert service["user"] != "root"


def test_the_image_is_pinned_and_not_root():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    (base,) = [line.removeprefix("ARG BASE=") for line in lines if line.startswith("ARG BASE=")]
    assert re.fullmatch(r"prefecthq/prefect:3\.8\.\d+-python3\.\d+", base)
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000:1000"]


def test_gpus_are_reserved_in_their_profile_only():
    with_gpu = {name for name, service in SERVICES.items() if "gpu" in str(service.get("deploy", ""))}
    assert with_gpu == {name for name, service in SERVICES.items() if service.get("profiles") == ["cuda"]}
    assert len(with_gpu) == 2
