"""Which Prefect server a command takes, and how its own comes up, in whatever surroundings."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.events import listening
from flows.orchestration import server, waiting
from flows.orchestration.server import UP_PROFILE, ServerError, embedded_server, users_server
from tests.benchmarks.surroundings import DASK, PREFECT, PROXIES
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


# Stand-ins for the server: as slow, as stuck or as broken as a machine can make it.
SLOW = """
import sys, time, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
threading.Thread(target=lambda: (sys.stdin.read(), __import__("os")._exit(0)), daemon=True).start()
ended = time.process_time() + 2
while time.process_time() < ended:
    pass
class Well(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Well).serve_forever()
"""
STUCK = "import sys; print('waiting for a lock', flush=True); sys.stdin.read()"
BROKEN = "import sys; print('a line before'); print('and after', file=sys.stderr); raise OSError('the disk is on fire')"


class Heard:
    def __init__(self):
        self.lines = []

    def on(self, event):
        self.lines.append(event.line)


@pytest.fixture
def heard(home, monkeypatch):
    """What is said, where a second without work is too long, and half of one is worth a word."""
    monkeypatch.setattr(waiting, "STUCK_SECONDS", 1.0)
    monkeypatch.setattr(waiting, "TELL_SECONDS", 0.5)
    monkeypatch.setenv("COLORIZE_ARCHIVE_CACHE", str(home / "cache"))
    heard = Heard()
    with listening(heard):
        yield heard


def test_a_server_that_gets_on_is_waited_for_and_it_is_said(heard, monkeypatch):
    monkeypatch.setattr(server, "_SERVER", SLOW)
    with embedded_server() as wait:
        wait()
    assert any("Prefect's server has not started in" in line for line in heard.lines)


def test_a_server_that_does_nothing_is_given_up(heard, monkeypatch):
    monkeypatch.setattr(server, "_SERVER", STUCK)
    with embedded_server() as wait, pytest.raises(ServerError, match=r"does not answer after .* waiting for a lock"):
        wait()


def test_a_server_that_ends_says_why(heard, monkeypatch):
    monkeypatch.setattr(server, "_SERVER", BROKEN)
    with embedded_server() as wait, pytest.raises(ServerError, match="ended with code 1: OSError: the disk is on fire"):
        wait()


@pytest.mark.service
def test_its_settings_are_its_own_and_end_with_it(home, monkeypatch):
    """Whatever a site sets for Prefect, and wherever its proxies are; the next server begins with a kept database."""
    monkeypatch.setenv("COLORIZE_ARCHIVE_CACHE", str(home / "cache"))
    (home / "prefect.db").write_bytes(b"no database")
    for name, value in SITE.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    for _ in range(2):
        with embedded_server() as wait:
            wait()
            url = os.environ["PREFECT_API_URL"]
            assert url.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(f"{url}/admin/settings", timeout=30) as answer:
                told = answer.read().decode()
            assert "elsewhere.example.org" not in told
        assert dict(os.environ) == before
        (kept,) = (home / "cache" / "prefect").iterdir()
    assert (home / "prefect.db").read_bytes() == b"no database"
    assert sorted(path.name for path in home.iterdir()) == ["cache", "prefect.db"]

    kept.write_bytes(kept.read_bytes()[:5000])  # torn: it is made anew
    with embedded_server() as wait:
        wait()
    with sqlite3.connect(kept) as database:
        assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
    newer = sqlite3.connect(kept)
    newer.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")  # whole, but of no Prefect that is here
    newer.commit()
    newer.close()
    with embedded_server() as wait:
        wait()


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
