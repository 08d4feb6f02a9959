"""``deploy/up`` and the command as users type it, against a real server and a real worker."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
import tomllib
import urllib.request
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from distributed import Client, LocalCluster, fire_and_forget

from tests.deploy.conftest import UP, free_port
from tests.patience import PATIENCE_SECONDS, wait_until

QUICK = ("-p", "engine=identity")


def open_task_runs(set_up, run):
    """Names and states of those of a flow run that have not come to an end."""
    found = set_up.api("task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
    assert found
    ended = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    return [(each["name"], each["state_name"]) for each in found if each["state_type"] not in ended]


def _marked(home):
    """Processes of the set-up, by what they carry in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("COLORIZE_ARCHIVE_SET_UP", "").startswith(str(home)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_the_night_is_off_until_it_is_switched_on(set_up):
    (nightly,) = set_up.deployment("colorize-archive")["schedules"]
    assert (nightly["schedule"]["cron"], nightly["active"]) == ("0 1 * * *", False)


def test_a_night_without_scans_or_results_is_not_switched_on(set_up):
    refused = set_up.up("--nightly", "01:00")
    assert refused.code == 2
    assert "no --scans and no --results" in refused.complaint
    (nightly,) = set_up.deployment("colorize-archive")["schedules"]
    assert (nightly["schedule"]["cron"], nightly["active"]) == ("0 1 * * *", False)


def test_a_start_with_a_night_without_results_ends(set_up, scans, tmp_path):
    """What was given before is known when the server answers; then all of it ends again."""
    refused = set_up.up("--home", tmp_path, "--port", free_port(), "--detach", "--nightly", "01:00", "--scans", scans)
    assert refused.code == 2
    assert "no --results" in refused.complaint
    assert "--scans" not in refused.complaint
    assert _marked(tmp_path) == []


def test_the_command_as_users_type_it(set_up, scans, tmp_path):
    typed = f'deployment run colorize-archive -p stride=64 -p inputs=["{scans}"] -p output={tmp_path / "colour"}'
    started = set_up.prefect(*typed.split(), *QUICK, "--flow-run-name", "typed")
    assert started.code == 0, started.err
    run = set_up.run_that("All done", name="typed")
    assert "3 done" in run["state"]["message"]
    assert sorted(p.name for p in (tmp_path / "colour").glob("*.color.tif")) == [f"scan{n}.color.tif" for n in range(3)]
    assert run["parameters"]["stride"] == 64


def test_a_run_whose_worker_is_killed_goes_on_and_tells_what_failed(set_up, told, scans, tmp_path):
    (tmp_path / "broken.tif").write_text("This is no picture.")
    inputs = f'inputs=["{scans}", "{tmp_path / "broken.tif"}"]'
    words = ["-p", inputs, "-p", f"output={tmp_path / 'colour'}", *QUICK, "--flow-run-name", "killed"]
    assert set_up.prefect("deployment", "run", "colorize-archive/colorize-archive", *words).code == 0
    set_up.run_that("Running", name="killed")
    (worker,) = [p for p in _marked(set_up.home) if "worker" in p.cmdline() and "start" in p.cmdline()]
    worker.kill()
    run = set_up.run_that("Some scans failed", name="killed")
    assert (run["state_type"], run["run_count"]) == ("FAILED", 2)
    assert len(list((tmp_path / "colour").glob("*.color.tif"))) == 3
    assert open_task_runs(set_up, run) == []
    # The state tells it; nothing broke, so there is no traceback, on the page or in the worker's log.
    lines = set_up.api("logs/filter", logs={"flow_run_id": {"any_": [run["id"]]}})
    # But the process whose worker died is told to end, and if there is still time, Prefect's engine says where it was.
    said = [line["message"] for line in lines if not line["message"].startswith("Engine execution interrupted")]
    assert [message for message in said if "Traceback" in message] == []
    assert "Traceback" not in (set_up.home / "colorize-archive" / "worker.log").read_text()
    assert "killed is Some scans failed" in told(lambda text: "Some scans failed" in text)


def test_a_schedule_runs_and_stays_as_it_was_set(set_up, scans, tmp_path):
    in_the_page = {"parameters": {"engine": "identity"}, "paused": False}
    set_up.api(f"deployments/{set_up.deployment('colorize-archive')['id']}", method="PATCH", **in_the_page)
    set_up.api(f"deployments/{set_up.deployment('reprocess-archive')['id']}", method="PATCH", parameters={"keep": 3})
    once_more = set_up.up("--scans", scans, "--results", tmp_path / "colour", "--nightly", "02:30")
    assert "runs already" in once_more.out, once_more.err
    assert set_up.deployment("reprocess-archive")["parameters"] == {"keep": 3, "output": str(tmp_path / "colour")}
    assert set_up.deployment("build-engines")["parameters"] == {}
    # What misses it, on a machine that stands still, has another one soon.
    soon = {"interval": 60, "anchor_date": (datetime.now(UTC) + timedelta(seconds=6)).isoformat(), "timezone": "UTC"}
    path = f"deployments/{set_up.deployment('colorize-archive')['id']}/schedules"
    (made,) = set_up.api(path, items=[{"schedule": soon, "active": True}])
    run = set_up.run_that("All done", auto_scheduled=True)
    assert run["parameters"] == {"engine": "identity", "inputs": [str(scans)], "output": str(tmp_path / "colour")}
    assert (tmp_path / "colour" / "scan2.color.tif").exists()

    assert set_up.up().code == 0
    kept = set_up.deployment("colorize-archive")
    schedules = {each["schedule"].get("cron", "interval"): each["active"] for each in kept["schedules"]}
    assert schedules == {"30 2 * * *": True, "interval": True}
    assert kept["parameters"]["output"] == str(tmp_path / "colour")
    set_up.api(f"{path}/{made['id']}", method="DELETE")


def test_a_name_that_none_has_lists_those_that_are_there(set_up):
    asked = set_up.prefect("deployment", "run", "colourise", "-p", "stride=64")
    assert asked.code == 1
    assert "'colourise'" in asked.complaint
    assert "colorize-archive/colorize-archive" in asked.complaint
    assert "build-engines/build-engines" in asked.complaint


def test_a_name_that_several_have_is_not_guessed(set_up):
    other = set_up.api("flows/", name="other-flow")
    made = set_up.api("deployments/", name="build-engines", flow_id=other["id"])
    asked = set_up.prefect("deployment", "run", "build-engines")
    assert asked.code == 1
    assert "2 have this name" in asked.complaint
    assert "build-engines/build-engines, other-flow/build-engines" in asked.complaint
    set_up.api(f"deployments/{made['id']}", method="DELETE")


def test_a_value_that_looks_like_the_name_stays_a_value(set_up):
    words = ["-p", "models=[]", "--tag", "build-engines", "build-engines"]
    asked = set_up.prefect("deployment", "run", *words)
    assert "models" in asked.out + asked.err, "the server refused the parameter, so it was the right deployment"
    assert asked.code == 1


def test_what_a_run_would_refuse_is_refused_at_once(set_up):
    for name in ("colorize-archive", "colorize-archive/colorize-archive"):
        asked = set_up.prefect("deployment", "run", name, "-p", "stride=300", "--flow-run-name", "too coarse")
        assert asked.code == 1
        assert "stride 300 is larger than the tile (256)" in asked.complaint
        assert "nothing was started" in asked.complaint
    assert set_up.api("flow_runs/filter", flow_runs={"name": {"any_": ["too coarse"]}}) == []


def test_a_server_that_is_not_there_is_one_line(set_up):
    url = f"http://127.0.0.1:{free_port()}/api"
    asked = set_up.run(sys.executable, "-m", "prefect", "deployment", "run", "colorize-archive", PREFECT_API_URL=url)
    assert asked.code == 1
    assert url in asked.complaint
    assert "does not answer" in asked.complaint


def test_a_taken_port_is_one_line(set_up, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = set_up.up("--home", tmp_path, "--port", port)
    assert refused.code == 2
    assert f"port {port}: taken" in refused.complaint


def test_metrics_are_there_to_be_scraped(set_up):
    with urllib.request.urlopen(f"http://127.0.0.1:{set_up.port}/api/metrics", timeout=PATIENCE_SECONDS) as answer:
        assert re.search(rb"^# TYPE \w+", answer.read(), re.MULTILINE)


@pytest.fixture
def under_way(set_up, scans, tmp_path):
    """The results of a run that stays in the middle: the only worker does something else."""
    one = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**one) as cluster, Client(cluster) as client:
        fire_and_forget(client.submit(time.sleep, PATIENCE_SECONDS))
        scheduler = f"scheduler={cluster.scheduler_address}"
        words = ["-p", f'inputs=["{scans}"]', "-p", f"output={tmp_path}", "-p", scheduler]
        assert set_up.prefect("deployment", "run", "colorize-archive", *words, *QUICK).code == 0
        wait_until(lambda: list(tmp_path.glob("*.zarr/versions/*")))
        yield tmp_path


def test_it_is_well_and_ends_all_that_it_started(set_up, under_way):
    """The last but one here; the next needs no set-up that runs. The run says how far it came."""
    status = set_up.up("--status")
    assert (status.code, "is well" in status.out, "is online" in status.out) == (0, True, True)
    profiles = tomllib.loads((set_up.home / "profiles.toml").read_text())
    assert profiles["profiles"][profiles["active"]]["PREFECT_API_URL"].endswith(f":{set_up.port}/api")

    bystander = psutil.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert set_up.up("--stop").code == 0
    assert _marked(set_up.home) == []
    (record,) = under_way.glob("runs/*.json")
    told = json.loads(record.read_text())
    assert (told["state"], {scan["status"] for scan in told["scans"]}) == ("Cancelled", {"stopped"})
    assert bystander.is_running()
    bystander.kill()
    bystander.wait()
    assert tomllib.loads((set_up.home / "profiles.toml").read_text())["active"] == "ephemeral"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", set_up.port))
    assert set_up.up("--status").code == 1


def test_ctrl_c_ends_a_start_that_is_under_way(set_up, tmp_path):
    process = psutil.Popen(
        [sys.executable, str(UP), "--home", str(tmp_path), "--port", str(free_port())], env=set_up.environment
    )
    wait_until((tmp_path / "colorize-archive" / "server.log").exists)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert not (tmp_path / "colorize-archive" / "up.json").exists()
    assert _marked(tmp_path) == []
