"""Clusters that are already there, with and without TLS, and the ways in which they do not fit."""

import contextlib
import importlib.metadata
import json
import subprocess
import sys
import types

import pytest
from distributed import Client, LocalCluster
from distributed.security import Security

from flows.cluster import dask_cluster
from flows.cluster.dask_cluster import check_versions, open_cluster
from flows.cluster.worker import EnginePlugin
from flows.events import listening
from flows.options import ClusterOptions, parse_cluster
from pipeline.errors import UsageError
from pipeline.planning.plan import Workers
from tests.models import make_model
from tests.patience import PATIENCE_SECONDS
from tests.request import asked


@pytest.fixture(scope="module")
def local():
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as made:
        yield made


def test_a_scheduler_file_with_two_workers_runs_palettes_and_blocks(command, local, scans, moody, tmp_path):
    path = tmp_path / "scheduler.json"
    path.write_text(json.dumps({"address": local.scheduler_address}))
    words = ("--scheduler", path, "--model", moody)
    ran = command("run", scans / "peasant-girls-1909.png", "-o", tmp_path / "out", *words)
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "out" / "peasant-girls-1909.color.json").read_text())["settings"]["anchor"]
    assert len(local.scheduler_info["workers"]) == 2


def test_an_adaptive_cluster_without_workers_starts_some_for_the_run(command, scans, moody, tmp_path):
    words = ("--model", moody, "--precision", "fp32")
    with LocalCluster(n_workers=0, threads_per_worker=1, processes=True, dashboard_address=":0") as made:
        made.adapt(minimum=0, maximum=2)
        given = ("--scheduler", made.scheduler_address, *words)
        ran = command("run", scans / "peasant-girls-1909.png", "-o", tmp_path / "out", *given)
        assert ran.code == 0, ran.err
        assert "no workers yet" in ran.out + ran.err


def test_an_existing_cluster_without_workers_is_not_waited_for_past_the_deadline():
    said = []
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as bare,
        listening(types.SimpleNamespace(on=said.append)),
        open_cluster(Workers(1, 1, 1), ClusterOptions(scheduler=bare.scheduler_address), 2**31, None, 0.0) as client,
    ):
        assert not client.nthreads()
        assert not client.processing()
    assert [str(each).count("no workers") for each in said] == [1, 1]


def test_tls_is_passed_through(command, scans, tmp_path):
    """A scheduler that talks to nobody without the right certificate."""
    made = Security.temporary()
    pem = tmp_path / "all.pem"
    pem.write_text(made.tls_ca_file + made.tls_client_cert + made.tls_client_key)
    with LocalCluster(n_workers=1, processes=True, security=made, dashboard_address=":0") as secured:
        address = secured.scheduler_address
        assert address.startswith("tls://")
        words = ("run", scans / "peasant-girls-1909.png", "-o", tmp_path / "out", "--engine", "identity")
        tls = ("--tls-ca", pem, "--tls-cert", pem, "--tls-key", pem)
        ran = command(*words, "--scheduler", address, *tls)
        assert ran.code == 0, ran.err
        ran = command(*words, "--force", "--scheduler", address, "--tls-ca", tmp_path / "none.pem")
        assert ran.code == 2
        assert "no such file" in ran.line("none.pem")


@pytest.mark.e2e
def test_workers_with_other_versions_are_found_before_any_work(local, monkeypatch):
    with Client(local, set_as_default=False) as client:
        check_versions(client, None)
        real = importlib.metadata.version
        monkeypatch.setattr(dask_cluster, "version", lambda name: "0.0.1" if name == "zarr" else real(name))
        with pytest.raises(UsageError, match=r"zarr .* \(here 0.0.1\); 1 more workers differ.*other bytes") as caught:
            _check_as_if_sent(client, monkeypatch, real)
        assert "\n" not in str(caught.value)


def _check_as_if_sent(client, monkeypatch, real):
    """The workers are asked with the real function, as they would be from another machine."""
    run = client.run

    def ask(function, *words, **options):
        return run(real if function is dask_cluster.version else function, *words, **options)

    monkeypatch.setattr(client, "run", ask)
    check_versions(client, None)


@pytest.mark.e2e
def test_a_worker_without_the_project_says_so(tmp_path):
    """A real worker in an environment that has Dask but not this project."""
    code = (
        "import importlib.metadata as m, sys; real = m.version\n"
        "def version(name):\n"
        "    if name == 'colorize-archive': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
        "from distributed.cli.dask_worker import main\n"
        "sys.argv += ['--no-nanny', '--nthreads', '1', '--no-dashboard']\n"
        "main()\n"
    )
    with LocalCluster(n_workers=0, processes=True, dashboard_address=":0") as bare, contextlib.ExitStack() as stack:
        words = [sys.executable, "-c", code, bare.scheduler_address, "--local-directory", str(tmp_path)]
        worker = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        stack.callback(worker.wait)
        stack.callback(worker.terminate)
        with Client(bare.scheduler_address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=PATIENCE_SECONDS)
            with pytest.raises(UsageError, match="colorize-archive missing"):
                check_versions(client, None)


@pytest.mark.e2e
def test_engines_open_once_a_process_also_in_workers_that_join_later(tmp_path):
    from engines.spec import EngineSpec

    spec = EngineSpec("onnxruntime", str(make_model(tmp_path / "tiny")), (64, 64), 2)

    def engines():
        from flows.cluster import worker as blocks

        return [id(engine) for engine in blocks._engines.values()]

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=":0") as made,
        Client(made, set_as_default=False) as client,
    ):
        client.register_plugin(EnginePlugin(spec, "test"))
        made.scale(2)
        client.wait_for_workers(2, timeout=PATIENCE_SECONDS)
        opened = client.run(engines)
        assert [len(each) for each in opened.values()] == [1, 1]
        assert client.run(engines) == opened


def test_cuda_without_its_package_or_a_gpu_is_one_line(command, scans, tmp_path, monkeypatch):
    ran = command("run", scans / "peasant-girls-1909.png", "-o", tmp_path, "--cluster", "cuda", "--engine", "identity")
    assert ran.code == 2
    assert "cluster cuda" in ran.line("--cluster local")


@pytest.mark.e2e
def test_cuda_starts_one_pinned_worker_a_gpu(monkeypatch):
    """What is asked of dask-cuda, whose own part needs a GPU."""
    asked = {}

    class Fake(LocalCluster):
        def __init__(self, **options):
            asked.update(options)
            super().__init__(n_workers=1, processes=False, dashboard_address=":0", resources=options["resources"])

    monkeypatch.setitem(sys.modules, "dask_cuda", types.SimpleNamespace(LocalCUDACluster=Fake))
    with open_cluster(Workers(1, 1, 1), ClusterOptions("cuda"), 2**31, None) as client:
        assert client.submit(abs, -1, resources={"GPU": 1}).result() == 1
    assert asked["resources"] == {"GPU": 1}
    assert "n_workers" not in asked  # one for each GPU that it finds


@pytest.mark.parametrize(
    ("options", "says"),
    [({"cluster": "cloud"}, "cluster 'cloud'"), ({"scheduler": "somewhere"}, "neither a Dask address")],
)
def test_what_is_no_cluster_is_said(options, says, tmp_path):
    with pytest.raises(UsageError, match=says):
        parse_cluster(asked(tmp_path, **options))


def test_a_worker_that_is_slow_to_go_fails_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask raises a bare TimeoutError where the system has not buried a killed worker within nine seconds."""
    from distributed.nanny import WorkerProcess

    kill, seen = WorkerProcess.kill, []

    async def slow_kill(process: WorkerProcess, *arguments: object, **options: object) -> None:
        await kill(process, *arguments, **options)  # type: ignore[arg-type]
        seen.append(process)
        raise TimeoutError

    monkeypatch.setattr(WorkerProcess, "kill", slow_kill)
    with open_cluster(Workers(1, 1, 1), ClusterOptions(), 2**31, None) as client:
        assert client.submit(sum, [1, 2]).result(timeout=PATIENCE_SECONDS) == 3
    assert seen
