"""The command line as a user runs it: processes with a real Prefect server and a real cluster."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dask
import numpy as np
import onnx
import pytest
from distributed import LocalCluster
from onnx import TensorProto, helper, numpy_helper

from engines.machine import processors
from engines.spec import ModelCard
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.prefect_server import prefect_server
from tests.warm import warm_command

_OF_WORKERS = {"--workers", "--scheduler", "--cluster", "--limit-memory", "--dry-run"}


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.err.splitlines() if line.strip()]

    def line(self, *words: str) -> str:
        """The one line of standard error that has all ``words``."""
        found = [line for line in self.lines if all(word in line for word in words)]
        assert len(found) == 1, f"{words} in {len(found)} lines of:\n{self.err}"
        return found[0]


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Of a user who has no Prefect server: commands do without."""
    return {**os.environ, "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")), "COLUMNS": "200"}


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory):
    with prefect_server(tmp_path_factory.mktemp("shared")) as server:
        yield server


@pytest.fixture(scope="session")
def shared_cluster():
    """Address of a Dask cluster like the one that a run makes on this machine."""
    unwatched = dask.config.set({"distributed.worker.profile.enabled": False})
    with unwatched, LocalCluster(n_workers=1, threads_per_worker=processors(), dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def command(shared_server, shared_cluster, tmp_path_factory):
    """Run ``colorize-archive`` with the given words, beside a server and a cluster that are there: sooner at work.

    In a process of its own, whose imports are done. Where the words say something of workers, the run makes a cluster.
    """
    beside = ("--scheduler", shared_cluster)

    def run(*words: object) -> Ran:
        makes_none = words[0] not in ("run", "reprocess") or _OF_WORKERS.intersection(map(str, words))
        return _checked(*warm.run(*words, *(() if makes_none else beside)))

    with warm_command(shared_server.environment, tmp_path_factory.mktemp("warm")) as warm:
        yield run


@pytest.fixture(scope="session")
def cold_command(shared_server):
    """The same in a new interpreter, for tests of how commands start."""
    return partial(_run, shared_server.environment)


@pytest.fixture(scope="session")
def lone_command(environment):
    """A new interpreter where there is no server."""
    return partial(_run, environment)


def _run(environment: Mapping[str, str], *words: object, **options: object) -> Ran:
    process = subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env=dict(environment),
        timeout=PATIENCE_SECONDS,
        **options,
    )
    return _checked(process.returncode, process.stdout, process.stderr)


def _checked(code: int, out: str, err: str) -> Ran:
    assert "Traceback" not in err + out, err
    return Ran(code, out, err)


@pytest.fixture(scope="session")
def killed(shared_server):
    """Start ``colorize-archive`` in a process group of its own, and kill all of it without warning when ``ready()``."""

    def kill(words, ready):
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *map(str, words)],
            env=dict(shared_server.environment),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: ready() or process.poll() is not None, every_seconds=0.02)
        assert process.poll() is None, "ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    return kill


@pytest.fixture(scope="session")
def moody(tmp_path_factory) -> Path:
    """A model whose colours hang on the mean lightness of all that it sees, so that neighbouring tiles disagree.

    As fast as no real network is; what is wrong with the order of tiles, with blocks or with the anchor shows in it.
    """
    folder = tmp_path_factory.mktemp("models") / "moody"
    folder.mkdir()
    kernels = np.random.default_rng(7).normal(0, 0.1, (2, 1, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["lightness", "kernels"], ["detail"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["lightness"], ["mean"], axes=[2, 3]),
        helper.make_node("Mul", ["mean", "moods"], ["mood"]),
        helper.make_node("Add", ["detail", "mood"], ["both"]),
        helper.make_node("Tanh", ["both"], ["chroma"]),
    ]
    moods = np.array([0.8, -1.2], np.float32).reshape(1, 2, 1, 1)
    graph = helper.make_graph(
        nodes,
        "moody",
        [helper.make_tensor_value_info("lightness", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("chroma", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [numpy_helper.from_array(kernels, "kernels"), numpy_helper.from_array(moods, "moods")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    sha256 = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "card.json").write_text(ModelCard("moody", "mean", 0.02, -1.0, 110.0, 8, sha256).to_json())
    return folder


@pytest.fixture(scope="session")
def scans() -> Path:
    return Path(__file__).parents[1] / "scans"
