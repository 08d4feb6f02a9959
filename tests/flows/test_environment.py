"""What processes have in their environment: proxies that loopback never takes, and places for temporary files."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import httpx
import pytest

from flows.environment import pass_proxies_by, tell_nobody, without_proxies
from flows.run import temporary_folder
from tests.patience import PATIENCE_SECONDS

PROXY = "http://127.0.0.1:9"


@pytest.fixture
def proxies(monkeypatch):
    """The environment without any proxy; sets what is given."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    return lambda **given: [monkeypatch.setenv(name, value) for name, value in given.items()]


@pytest.mark.parametrize(
    "given",
    [
        {"HTTP_PROXY": PROXY, "http_proxy": PROXY},
        {"all_proxy": PROXY, "no_proxy": "intranet.example.org"},
        {"HTTP_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8, [::1]"},
        {"HTTPS_PROXY": PROXY, "http_proxy": PROXY, "no_proxy": "::1/128"},
        {"ALL_PROXY": "socks5h://127.0.0.1:9", "HTTP_PROXY": PROXY},
    ],
)
def test_loopback_goes_through_no_proxy_and_all_else_does(proxies, monkeypatch, given):
    proxies(**given)
    pass_proxies_by(os.environ)
    for host in ("127.0.0.1", "localhost"):
        assert urllib.request.proxy_bypass(host)
    with httpx.Client() as client:  # as Prefect's
        for url in ("http://127.0.0.1:4200", "http://localhost:4200", "http://[::1]:4200"):
            assert client._transport_for_url(httpx.URL(url)) is client._transport, url
        assert client._transport_for_url(httpx.URL("http://elsewhere.example.org")) is not client._transport
    listed = {name.strip(" []") for name in given.get("NO_PROXY", given.get("no_proxy", "")).split(",")}
    assert listed - {"::1/128", ""} <= set(os.environ["NO_PROXY"].split(","))
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"]


def test_where_there_is_no_proxy_nothing_is_said_of_exceptions(proxies):
    proxies()
    pass_proxies_by(os.environ)
    assert "no_proxy" not in os.environ


def test_a_run_of_its_own_server_has_none(proxies):
    proxies(HTTP_PROXY="htp://nonsense", all_proxy=PROXY, NO_PROXY="::1/64")
    without_proxies(os.environ)
    with httpx.Client() as client:
        assert client._transport_for_url(httpx.URL("http://elsewhere.example.org")) is client._transport


def test_who_wants_to_tell_is_not_kept_from_it():
    environment = {"DO_NOT_TRACK": "0"}
    tell_nobody(environment)
    assert environment["DO_NOT_TRACK"] == "0"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


@pytest.mark.e2e
@pytest.mark.parametrize(
    "first", ["flows.orchestration.colorize", "flows.orchestration.plugin", "engines.select", "training.loop"]
)
def test_it_is_off_whatever_is_imported_first(first):
    """In a process whose environment says nothing of it."""
    if first == "training.loop":
        pytest.importorskip("torch")
    code = (
        f"import {first}, os, sys\n"
        "import openvino, onnxruntime\n"
        "import openvino.tools.ovc.telemetry_utils as told\n"
        "assert told.tm.__name__.endswith('telemetry_stub'), told.tm\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
    )
    if first.startswith("flows"):
        code += (
            "from prefect._internal.analytics.enabled import is_telemetry_enabled\n"
            "assert not is_telemetry_enabled()\n"
            "from prefect.settings import get_current_settings\n"
            "assert not get_current_settings().server.analytics_enabled\n"
            "assert not get_current_settings().telemetry.enable_resource_metrics\n"
        )
    silent = ("DO_NOT_TRACK", "ORT_DISABLE_TELEMETRY", "CI")
    environment = {n: v for n, v in os.environ.items() if n not in silent and not n.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("is_full", [False, True])
def test_temporary_files_lie_beside_the_results_where_there_is_no_other_place(tmp_path, monkeypatch, is_full):
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    monkeypatch.setenv("TMPDIR", str(tmp_path if is_full else tmp_path / "gone"))
    temporary_folder.see_to_temporary_files(tmp_path)
    usual = tempfile.gettempdir()
    assert usual == (str(tmp_path) if is_full else "/tmp")

    really = temporary_folder._is_usable
    monkeypatch.setattr(
        temporary_folder, "_is_usable", lambda place: really(place) and place not in ("/tmp", "/var/tmp")
    )
    monkeypatch.setattr(temporary_folder, "_ROOM_BYTES", 2**60 if is_full else 0)
    (tmp_path / "out").mkdir()
    temporary_folder.see_to_temporary_files(tmp_path / "out")
    with tempfile.NamedTemporaryFile() as file:
        assert Path(file.name).parent == tmp_path / "out"
