"""What ``deploy/`` starts: its scripts, what they refuse, the file of a set-up that runs, the processes below it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from flows.cli.service import deployments
from flows.service.deployments import Asked, parse_nightly
from flows.service.processes import MARK, Child, Place, SetUpError, check_port, end_all
from flows.service.running import Running
from pipeline.errors import UsageError
from tests.patience import PATIENCE_SECONDS

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRIPTS = ("up", "deployments.py", "notify.py", "runs.py")


def _without_packages(script: Path) -> subprocess.CompletedProcess[str]:
    """As by a Python of the system: neither packages nor paths of the environment."""
    return subprocess.run(
        [sys.executable, "-I", "-S", script, "--status"], capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )


@pytest.mark.e2e
def test_up_hands_over_to_the_python_where_it_is_installed(tmp_path):
    (tmp_path / "deploy").mkdir()
    up = Path(shutil.copy(DEPLOY / "up", tmp_path / "deploy"))
    python = tmp_path / ".venv" / "bin" / "python"
    refused = _without_packages(up)
    assert refused.returncode == 1
    assert "is not installed" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    assert _without_packages(up).stdout == f"{up} --status\n"


def test_deploy_has_no_python_but_scripts_of_a_few_lines():
    found = {path.name for path in DEPLOY.rglob("*") if path.suffix == ".py" or os.access(path, os.X_OK)}
    assert {name for name in found if (DEPLOY / name).is_file()} == set(SCRIPTS)
    assert all(len((DEPLOY / name).read_text().splitlines()) < 30 for name in SCRIPTS)


@pytest.mark.parametrize(
    ("given", "cron"),
    [(None, None), ("01:30", "30 1 * * *"), ("9:05", "5 9 * * *"), ("0 1 * * 1-5", "0 1 * * 1-5")],
)
def test_a_night_is_a_time_or_a_cron_line(given, cron):
    assert parse_nightly(given) == cron


@pytest.mark.parametrize("given", ["24:00", "soon", "1 2 3"])
def test_what_is_neither_is_refused_before_anything_is_asked_of_a_server(given):
    with pytest.raises(UsageError, match="nothing would be scheduled"):
        parse_nightly(given)
    refused = CliRunner().invoke(deployments, ["--nightly", given], obj=DEPLOY / "prefect.yaml")
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"colorize-archive: nightly {given!r}: not a time")


def test_deployments_get_what_they_have_parameters_for():
    asked = Asked(scans=("/scans",), results="/colour", cron="0 1 * * *")
    assert asked.parameters("colorize-archive") == {"inputs": ["/scans"], "output": "/colour"}
    assert asked.parameters("reprocess-archive") == {"output": "/colour"}
    assert asked.parameters("build-engines") == {}


@pytest.mark.parametrize("said", [None, "", "{}", "[1]", '{"pid": 1'])
def test_a_file_that_tells_of_no_set_up_is_none(tmp_path, said):
    place = Place(tmp_path)
    place.folder.mkdir()
    if said is not None:
        place.state.write_text(said)
    assert Running.of(place) is None


def test_a_process_of_the_same_number_is_not_the_set_up(tmp_path):
    """After the machine was started again, another program may have the number."""
    place = Place(tmp_path)
    place.folder.mkdir()
    told = {"pid": os.getpid(), "created": psutil.Process().create_time(), "url": "http://a", "profile_before": "mine"}
    for created, is_alive in ((told["created"], True), (told["created"] - 60, False)):
        place.state.write_text(json.dumps(told | {"created": created}))
        found = Running.of(place)
        assert found is not None
        assert found.is_alive is is_alive


def test_a_port_that_is_taken_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UsageError, match=f"port {taken.getsockname()[1]}: taken"):
            check_port(taken.getsockname()[1])


@pytest.mark.e2e
def test_what_a_set_up_started_is_found_by_its_mark_and_ended(tmp_path):
    """A grandchild too, whose parent has gone."""
    place = Place(tmp_path)
    sleep = f"import subprocess; subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(60)'])"
    subprocess.run([sys.executable, "-c", sleep], env=os.environ | {MARK: str(place.folder)}, check=True)
    (left,) = place.processes()
    end_all([left])
    assert place.processes() == []


@pytest.mark.e2e
def test_a_child_that_dies_is_given_up_after_some_starts(tmp_path):
    place = Place(tmp_path)
    place.folder.mkdir()
    child = Child("worker", ["no-such-command"], place)
    child.start()
    assert child.process is not None
    child.process.wait()
    assert child.has_died
    child.deaths = [time.monotonic()] * 5
    with pytest.raises(SetUpError, match="worker died 5 times"):
        child.start_again()
