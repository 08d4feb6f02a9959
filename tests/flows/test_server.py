"""Which Prefect server a command takes."""

from __future__ import annotations

import socket

import cv2
import numpy as np
import pytest

from flows.server import UP_PROFILE, users_server
from tests.flows.conftest import _run

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
