"""Nothing leaves the machine: ``deploy/up`` from its start to its end, with a run; and what containers are told."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import yaml

from flows.environment import NOT_TOLD
from tests.deploy.composed import DEPLOY, image_environment, services
from tests.deploy.conftest import UP, SetUp, free_port
from tests.outward import Watch
from tests.patience import PATIENCE_SECONDS, wait_until

SWITCHES = {**NOT_TOLD, "ORT_DISABLE_TELEMETRY": "1"}


def test_a_set_up_with_a_run(tmp_path, scans):
    """In a terminal, as its user has it: Prefect tells of first uses there only."""
    home = tmp_path / "home"
    home.mkdir()
    watch, found = Watch(tmp_path), SetUp(home / ".prefect", free_port())
    environment = {name: value for name, value in found.environment.items() if name not in (*SWITCHES, "CI")}
    environment |= {"HOME": str(home), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    words = watch.words([sys.executable, str(UP), "--port", str(found.port)])
    main, terminal = os.openpty()
    typed = {"stdin": terminal, "stderr": terminal, "cwd": tmp_path, "env": watch.environment(environment)}
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen(words, stdout=log, **typed)
    try:
        said = (tmp_path / "up.log").read_text
        wait_until(lambda: "\nready " in said() or up.poll() is not None, said)
        assert up.poll() is None, said()
        asked = ["-p", f'inputs=["{scans}"]', "-p", f"output={tmp_path / 'out'}", "-p", "engine=identity"]
        command = [sys.executable, "-m", "prefect", "deployment", "run", "colorize-archive", *asked]
        named = watch.words([*command, "--flow-run-name", "watched"])
        assert subprocess.run(named, stdout=subprocess.DEVNULL, timeout=PATIENCE_SECONDS, **typed).returncode == 0
        found.run_that("All done", name="watched")
    finally:
        found.up("--stop")
        up.wait(PATIENCE_SECONDS)
        os.close(main)
        os.close(terminal)
    seen = watch.seen()
    assert seen.calls > 50
    assert seen.outside == ()
    written = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert not [path for path in written if re.search(r"device_?id|cid|intel|\.sdk_telemetry/device", path)], written


def test_the_image_tells_nobody():
    """Of all services, because the image is one."""
    told = image_environment()
    assert {name: told.get(name) for name in SWITCHES} == SWITCHES
    ours = [service for service in services("cpu").values() if service["image"].startswith("colorize-archive")]
    assert not [name for service in ours for name in service.get("environment", {}) if name in SWITCHES]


@pytest.mark.parametrize("profile", ["cpu", "cuda"])
def test_services_reach_each_other_without_a_proxy(profile):
    """Docker gives containers that of its own configuration; health checks would go through it, too."""
    found = services(profile)
    for name, service in found.items():
        if name != "postgres":
            listed = service["environment"]["NO_PROXY"].split(",")
            assert {"127.0.0.1", "localhost", "server", "dask-scheduler"} <= set(listed), name
            assert service["environment"]["no_proxy"] == service["environment"]["NO_PROXY"]
            assert {each for each in ("server", "dask-scheduler", "postgres") if each in found} <= set(listed)


def test_the_charts_tell_nobody():
    server = yaml.safe_load((DEPLOY / "kubernetes" / "prefect-server.yaml").read_text())
    told = {each["name"]: each["value"] for each in server["server"]["env"]}
    assert (told["PREFECT_SERVER_ANALYTICS_ENABLED"], told["DO_NOT_TRACK"]) == ("false", "1")
    worker = yaml.safe_load((DEPLOY / "kubernetes" / "prefect-worker.yaml").read_text())
    told = {each["name"]: each["value"] for each in worker["worker"]["extraEnvVars"]}
    assert (told["ORT_DISABLE_TELEMETRY"], told["DO_NOT_TRACK"]) == ("1", "1")
