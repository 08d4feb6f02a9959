"""The container files, read by the tools that will read them; and the processes of ``compose.yaml`` without containers.

They run by their own commands, environments and health checks; only addresses and folders are others.
"""

from __future__ import annotations

import re
import subprocess
import urllib.request

import kubernetes_validate
import numpy as np
import pytest
import tifffile
import yaml

from tests.deploy.composed import ASKED, DEPLOY, PROGRAMS, composed, model, services
from tests.deploy.conftest import ROOT, SetUp, free_port
from tests.deploy.postgres import postgres
from tests.patience import PATIENCE_SECONDS

SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
LASTING = {name: service for name, service in SERVICES.items() if name != "deployments"}
KUBERNETES = "1.33"


def _answer(url):
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def terminal(tmp_path_factory):
    """A terminal of the server that is to run."""
    return SetUp(tmp_path_factory.mktemp("composed"), free_port())


@pytest.fixture(scope="module")
def places(terminal):
    """What stands in ``compose.yaml``, and what is in its place here."""
    database, scheduler, dashboard, dask, worker = (str(free_port()) for _ in range(5))
    server = f"127.0.0.1:{terminal.port}"
    folders = {folder: str(terminal.home / folder[1:]) for folder in ("/scans", "/colour", "/tmp", "/var")}
    return {
        "postgres:5432": f"127.0.0.1:{database}",
        "server:4200": server,
        "127.0.0.1:4200": server,
        "0.0.0.0": "127.0.0.1",
        "dask-scheduler:8786": f"127.0.0.1:{scheduler}",
        "8786": scheduler,
        "8787": dashboard,
        "8790": dask,
        "127.0.0.1:8080": f"127.0.0.1:{worker}",
        "/opt/deploy": str(DEPLOY),
        **folders,
    }


@pytest.fixture(scope="module")
def whole(terminal, places):
    """All services of the profile ``cpu`` but the worker, each when those that it waits for are well."""
    for folder in ("scans", "colour", "tmp", "var/lib", "var/cache"):
        (terminal.home / folder).mkdir(parents=True)
    tifffile.imwrite(terminal.home / "scans" / "plate.tif", np.arange(100 * 80, dtype=np.uint16).reshape(100, 80))
    port = places["postgres:5432"].split(":")[1]
    with postgres(int(port), "prefect", ASKED["POSTGRES_PASSWORD"]) as database:
        beside = {
            "PYTHONPATH": str(ROOT),
            "PREFECT_SERVER_API_PORT": str(terminal.port),
            "PREFECT_WORKER_WEBSERVER_PORT": places["127.0.0.1:8080"].split(":")[1],
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            **database,
        }
        with composed(places, beside, terminal.home) as found:
            found.wait_healthy("postgres")
            for name in ("dask-scheduler", "server"):
                found.start(name)
            for name in ("dask-scheduler", "server"):
                found.wait_healthy(name)
            for name in ("dask-worker", "deployments"):
                found.start(name)
            found.wait_healthy("dask-worker")
            found.wait_done("deployments")
            yield found


def test_dask_is_there_to_be_scraped(whole):
    scheduler = _answer(whole.here("http://127.0.0.1:8787/metrics"))
    assert re.search(r'dask_scheduler_workers\{state="idle"\} 1', scheduler)
    assert "dask_worker_threads" in _answer(whole.here("http://127.0.0.1:8790/metrics"))


def test_the_deployments_know_the_folders_and_the_cluster(whole, terminal):
    where = {"output": whole.here("/colour"), "scheduler": whole.here("tcp://dask-scheduler:8786")}
    assert terminal.deployment("reprocess-archive")["parameters"] == where
    assert terminal.deployment("colorize-archive")["parameters"] == {"inputs": [whole.here("/scans")], **where}


def test_runs_are_coloured_on_the_dask_services(whole, terminal):
    """One that a worker's container left as running when it died, and one that is typed when the next is there."""
    colorize = terminal.deployment("colorize-archive")
    left = terminal.api(f"deployments/{colorize['id']}/create_flow_run", name="left", parameters={"engine": "identity"})
    for state in ("PENDING", "RUNNING"):
        terminal.api(f"flow_runs/{left['id']}/set_state", state={"type": state}, force=True)
    whole.start("worker")
    whole.wait_healthy("worker")
    assert "left was broken off, it goes on" in whole.said("worker")
    assert "1 done" in terminal.run_that("All done", name="left")["state"]["message"]

    typed = "prefect deployment run colorize-archive -p engine=identity -p stride=64 -p force=true"
    whole.run("worker", *typed.split(), "--flow-run-name", "typed")
    assert "1 done" in terminal.run_that("All done", name="typed")["state"]["message"]
    assert (terminal.home / "colour" / "plate.color.tif").exists()
    seen = _answer(whole.here("http://127.0.0.1:8787/metrics"))
    assert 'task_prefix_name="run_blocks"' in seen
    assert "dask_scheduler_client_connections_added_total 2.0" in seen


def test_the_server_takes_the_automation_for_runs_that_are_silent(whole, terminal):
    file = str(DEPLOY / "kubernetes" / "heartbeats.yaml")
    assert "Created" in whole.run("worker", "prefect", "automation", "create", "--from-file", file)
    (made,) = terminal.api("automations/filter", sort="CREATED_DESC")
    assert (made["trigger"]["posture"], made["actions"][0]["state"]) == ("Proactive", "SCHEDULED")


@pytest.mark.parametrize("profile", ["cpu", "cuda"])
def test_compose_takes_the_file(profile):
    assert model(profile).stderr == ""
    mine = {name for name, service in SERVICES.items() if profile in service.get("profiles", [profile])}
    assert set(services(profile)) == mine


def test_compose_refuses_a_key_that_it_does_not_know(tmp_path):
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((DEPLOY / "compose.yaml").read_text().replace("    user: postgres", "    usr: postgres"))
    assert "usr" in model("cpu", file=wrong).stderr


def test_the_pool_has_one_worker():
    """That takes up what is left of it: with another beside, it would take what that one is about."""
    names = [service["container_name"] for name, service in services("cpu").items() if name.startswith("worker")]
    assert names == ["colorize-archive-worker"]
    assert "is already in use" in model("cpu", "cuda").stderr


def _manifests():
    """What Kubernetes itself has schemas of: of Dask's cluster, which is its operator's, the pods and the service."""
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for found in yaml.safe_load_all(file.read_text()):
            if found.get("kind") == "DaskCluster":
                spec = found["spec"]
                for part in ("scheduler", "worker"):
                    yield f"{file.name}, {part}", {"apiVersion": "v1", "kind": "Pod", "spec": spec[part]["spec"]}
                service = spec["scheduler"]["service"]
                yield f"{file.name}, service", {"apiVersion": "v1", "kind": "Service", "spec": service}
            elif "kind" in found:
                yield file.name, found


@pytest.mark.parametrize(("name", "manifest"), list(_manifests()))
def test_kubernetes_takes_the_manifests(name, manifest):
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    wrong = manifest | {"spec": manifest["spec"] | {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def _lint(dockerfile):
    command = [PROGRAMS / "hadolint", "--no-color", "-"]
    return subprocess.run(command, input=dockerfile, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


def test_hadolint_has_nothing_against_the_image():
    text = (DEPLOY / "Dockerfile").read_text()
    assert _lint(text).stdout == ""
    assert _lint(text).returncode == 0
    assert "DL3003" in _lint(text + "RUN cd /colour && ls\n").stdout


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
