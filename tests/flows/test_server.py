"""Which Prefect server a command takes, and how long a process is waited for that starts one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.orchestration import waiting
from flows.orchestration.server import UP_PROFILE, users_server
from tests.benchmarks.surroundings import DASK, PREFECT, PROXIES
from tests.flows.conftest import _run
from tests.patience import PATIENCE_SECONDS

PROFILE = 'active = "{name}"\n[profiles.{name}]\nPREFECT_API_URL = "{url}"\n'


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_server():
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{probe.getsockname()[1]}/api"


def test_the_users_own_is_taken_whether_or_not_it_answers(home, no_server):
    assert users_server() is None
    (home / "profiles.toml").write_text(PROFILE.format(name="mine", url=no_server))
    assert users_server() == no_server


def test_that_of_deploy_up_only_while_it_runs(home):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        (home / "profiles.toml").write_text(PROFILE.format(name=UP_PROFILE, url=url))
        assert users_server() == url
    assert users_server() is None


def test_after_a_power_cut_under_deploy_up_the_plain_command_works(environment, no_server, tmp_path):
    """Its profile is active still, and its server gone."""
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "profiles.toml").write_text(PROFILE.format(name=UP_PROFILE, url=no_server))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 60), np.uint8))
    words = ("run", tmp_path / "a.png", "-o", tmp_path / "out", "--engine", "identity")
    ran = _run({**environment, "PREFECT_HOME": str(tmp_path / "prefect")}, *words)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    "said", ["no TOML = = =", "active = 'mine'\n[profiles.mine]\nPREFECT_API_URL = 'http://[::1'", "\xff"]
)
def test_a_profile_that_cannot_be_read_names_no_server(home, said):
    (home / "profiles.toml").write_bytes(said.encode("latin-1"))
    assert users_server() in (None, "http://[::1")


def test_a_user_without_a_home_has_no_profile(home, monkeypatch):
    monkeypatch.delenv("PREFECT_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}[0])
    assert users_server() is None


BUSY = "import time\nwhile time.process_time() < 60: pass"
IDLE = "import sys; sys.stdin.read()"


@pytest.fixture
def watched(monkeypatch):
    """Watch a program, where a second without work is too long, and half of one is worth a word."""
    monkeypatch.setattr(waiting, "STUCK_SECONDS", 1.0)
    monkeypatch.setattr(waiting, "TELL_SECONDS", 0.5)

    def watch(program: str, seconds: float) -> tuple[bool, list[float]]:
        told: list[float] = []
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
            progress = waiting.Progress(process.pid, told.append)
            deadline = time.monotonic() + seconds
            while not (is_stuck := progress.is_stuck()) and time.monotonic() < deadline:
                time.sleep(0.05)
            process.kill()
        return is_stuck, told

    return watch


def test_a_process_that_gets_on_is_waited_for_and_it_is_said(watched):
    is_stuck, told = watched(BUSY, seconds=3)
    assert not is_stuck
    assert told


def test_a_process_that_does_nothing_is_given_up(watched):
    is_stuck, _ = watched(IDLE, seconds=PATIENCE_SECONDS)
    assert is_stuck


SITE = {**PROXIES, **PREFECT, **DASK}


def test_a_run_in_a_site_of_many_settings(environment, tmp_path):
    """All of them at once; HOME cannot be made, what was in it is damaged, and TMPDIR is gone."""
    home = tmp_path / "prefect"
    home.mkdir()
    (home / "prefect.db").write_bytes(b"no database")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "prefect.toml").write_text('[server.api]\nauth_string = "somebody:secret"\n')
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 60), np.uint8))
    words = ("run", tmp_path / "a.png", "-o", tmp_path / "out", "--engine", "identity")
    site = {**SITE, "PREFECT_HOME": str(home), "HOME": "/proc/nobody", "TMPDIR": str(tmp_path / "gone")}
    path = os.pathsep.join(str(folder) for folder in [os.environ.get("PYTHONPATH", ""), Path.cwd()] if folder)
    ran = _run({**environment, **site, "PYTHONPATH": path}, *words, cwd=tmp_path / "work")
    assert ran.code == 0, ran.err
    assert [path.name for path in home.iterdir()] == ["prefect.db"]
    assert not list(tmp_path.glob("work/*.db"))
    shutil.rmtree(tmp_path / "out")
