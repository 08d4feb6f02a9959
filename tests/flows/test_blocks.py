"""Blocks from store to store with an engine whose numbers are elsewhere: the same files as with NumPy's."""

import array_api_compat.numpy
import numpy as np
import pytest

from engines.backends import _tensorrt_library, _tensorrt_runtime
from engines.convert.typed_graph import typed_graph
from engines.scaling import ScaledEngine
from engines.spec import EngineSpec, ModelCard, find_model
from flows.cluster import worker
from flows.cluster.worker import BlockDone, BlockTask, device_of, run_blocks
from pipeline.quality.score import refined
from pipeline.store import ScanStore, Source
from pipeline.tiling.anchor import Anchor
from pipeline.tiling.grid import TileGrid
from pipeline.types import Roi, ScanInfo
from tests import fake_gpu
from tests.models import make_model

SHAPE = (600, 700)
CARD = ModelCard("tiny", "none", 0.02, -1.0, 60.0, 1, "")


class Waves(ScaledEngine):
    """Products and sums alone, which no library rounds another way."""

    def _run(self, inputs):
        there = inputs[:, :, :1, :1]
        return self.array_namespace.concat([inputs * there, inputs - 0.5 * there], axis=1)


class WavesOfTensors(Waves):
    def __init__(self, card, spec):
        super().__init__(card, spec)
        pytest.importorskip("torch")
        from array_api_compat import torch

        self.array_namespace = torch


def stored(folder, kind, samples, monkeypatch, anchor):
    """Chroma and agreement of a store made with an engine of ``kind``, then refined at every second tile."""
    spec = EngineSpec(kind.__name__, "", (64, 64), 5)
    engine = kind(CARD, spec)
    monkeypatch.setattr(worker, "open_engine", lambda _: engine)
    channels = samples.shape[2] if samples.ndim == 3 else 1
    store = ScanStore.create(folder / "a.zarr", ScanInfo(SHAPE, channels, str(samples.dtype)), Source("a", 1, "5"))
    store.write_scan(Roi(0, SHAPE[0], 0, SHAPE[1]), samples)
    grid = TileGrid.of(SHAPE, (64, 64), (64, 64), 16)
    version = store.create_version("v", {}, 512, 1.0, "2026-01-01", 2)
    if anchor:
        cells = np.random.default_rng(3).normal(0, 20, (2, 38, 44)).astype(np.float32)
        version.write_anchor(Anchor(cells, 16), version.attempt)
    tasks = tuple(
        BlockTask("a", store.path, "v", grid, 512, block.index_yx, "hann", spec, version.attempt, "t", anchor=anchor)
        for block in grid.blocks(512)
    )
    assert all(isinstance(done, BlockDone) for done in run_blocks(tasks))
    finer = refined(grid, 1)
    chosen = np.indices((len(finer.y.starts), len(finer.x.starts))).sum(0) % 2 == 1
    version.write_chosen(1, chosen, 0.5)
    assert all(isinstance(done, BlockDone) for done in run_blocks(tuple(task.at(1) for task in tasks)))
    whole = Roi(0, SHAPE[0], 0, SHAPE[1])
    made = ScanStore.open(store.path).version("v")
    return made.read(whole), made.agreement(whole)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_blocks_are_stored_to_the_same_bytes(tmp_path, monkeypatch, dtype):
    samples = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, SHAPE, dtype)
    one, other = (stored(tmp_path / k.__name__, k, samples, monkeypatch, False) for k in (Waves, WavesOfTensors))
    assert one[0].tobytes() == other[0].tobytes()
    np.testing.assert_array_equal(one[1].weight, other[1].weight)
    np.testing.assert_allclose(one[1].mean, other[1].mean, atol=1e-4)


@pytest.mark.parametrize("eager", [False, True])
def test_blocks_made_beside_the_network_are_stored_to_the_same_bytes(tmp_path, monkeypatch, eager):
    """NVIDIA's runner on a fake GPU, with tiles of the host and with tiles of the device."""
    model = find_model(str(make_model(tmp_path / "tiny")))
    gpu = fake_gpu.install(monkeypatch, capability=(8, 9))
    gpu.eager = eager
    library = _tensorrt_library.Library(fake_gpu.LIBRARY, "Fake", portable=True)
    graph = typed_graph(model.onnx_path, "fp32")
    samples = np.random.default_rng(1).integers(0, 256, SHAPE, np.uint8)
    made, copies, engines = [], [], []
    for namespace in (array_api_compat.numpy, fake_gpu.DeviceArrays(gpu)):

        def kind(card, spec, namespace=namespace):
            engines.append(_tensorrt_runtime.open_engine(library, model, spec, graph, namespace))
            return engines[-1]

        monkeypatch.setattr(worker, "_engines", {})
        begin = len(gpu.told)
        made.append(stored(tmp_path / str(len(made)), kind, samples, monkeypatch, False))
        copies.append([told[4].name for told in gpu.told[begin:] if told[0] == "cudaMemcpyAsync"])
    (host, host_agreement), (there, agreement) = made
    assert there.tobytes() == host.tobytes()
    np.testing.assert_array_equal(agreement.weight, host_agreement.weight)
    np.testing.assert_allclose(agreement.mean, host_agreement.mean, atol=1e-4)
    for engine in engines:
        engine.close()
    assert not gpu.alive
    assert not gpu.mistakes
    # But for the lanes' first run, which is of nothing.
    assert len(copies[0]) == len(copies[1]) > 40
    assert "cudaMemcpyDeviceToDevice" not in copies[0]
    assert set(copies[1][2 * _tensorrt_runtime.SLOTS :]) == {"cudaMemcpyDeviceToDevice"}


def test_anchored_rgb_blocks_are_the_same_but_for_rounding(tmp_path, monkeypatch):
    samples = np.random.default_rng(1).integers(0, 256, (*SHAPE, 3), np.uint8)
    one, other = (stored(tmp_path / k.__name__, k, samples, monkeypatch, True) for k in (Waves, WavesOfTensors))
    np.testing.assert_allclose(other[0].astype(float), one[0].astype(float), rtol=2e-3, atol=1e-2)


def test_an_engine_has_its_own_memory_or_numpys():
    spec = EngineSpec("none", "", (64, 64), 5)
    assert device_of(Waves(CARD, spec)).is_host
    assert not device_of(WavesOfTensors(CARD, spec)).is_host
