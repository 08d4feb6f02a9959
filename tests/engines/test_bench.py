"""The arithmetic counted by hand and by closed forms, and what the benchmark does with engines."""

import dataclasses
import math
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import engines.measure.bench
from engines.errors import EngineUnavailableError, ModelError
from engines.measure.bench import (
    Speed,
    bench,
    calls_per_second,
    in_turns,
    matrix_rate,
    model_flop,
    plot,
    table,
)
from engines.registry import backend_module, backend_names
from engines.spec import PRECISIONS, EngineSpec, find_model
from tests.models import make_model

TILE = (32, 64)
SPEED = Speed("openvino", "2026.4", "fp32", 8, (256, 256), 2, 40.0, 2.62144, 50.0, 0.8)


@pytest.fixture
def spec(tmp_path):
    return EngineSpec("openvino", str(make_model(tmp_path / "tiny")), TILE, 4)


@pytest.fixture
def steady_machine(monkeypatch):
    """A thousand MFLOP/s for each thread."""
    monkeypatch.setattr(engines.measure.bench, "matrix_rate", lambda threads: threads * 1e9)


def mixed_model(path):
    """One of each kind of convolution: plain with a stride, grouped, transposed, transposed in groups."""
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Conv", ["p", "b"], ["q"], pads=[1, 1, 1, 1], group=4),
        helper.make_node("ConvTranspose", ["q", "c"], ["r"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("ConvTranspose", ["r", "d"], ["s"], strides=[2, 2], group=2),
        helper.make_node("Conv", ["s", "e"], ["y"], strides=[2, 2]),
    ]
    shapes = {"a": (8, 1, 3, 3), "b": (8, 2, 3, 3), "c": (8, 6, 4, 4), "d": (6, 5, 2, 2), "e": (2, 10, 1, 1)}
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", c, "h", "w"]) for name, c in (("x", 1), ("y", 2))
    ]
    graph = helper.make_graph(nodes, "mixed", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_flop_counted_by_hand(tmp_path):
    half, full, double = 16 * 32, 32 * 64, 64 * 128
    by_hand = (
        half * 8 * 1 * 9  # each of 8 outputs gathers 3x3 of 1 input
        + half * 8 * 2 * 9  # each of 8 outputs gathers 3x3 of its group's 2 inputs
        + half * 8 * 6 * 16  # each of 8 inputs is spread over 4x4 of 6 outputs
        + full * 6 * 5 * 4  # each of 6 inputs is spread over 2x2 of its group's 5 outputs
        + (double // 4) * 2 * 10
    )
    assert model_flop(mixed_model(tmp_path / "mixed.onnx"), TILE) == 2 * by_hand


def test_flop_of_the_tiny_network_is_its_closed_form(spec):
    path = find_model(spec.model_folder).onnx_path
    for tile in (TILE, (256, 256)):
        assert model_flop(path, tile) == 2 * 2 * 9 * math.prod(tile)


def test_flop_of_the_default_is_what_runs():
    """The same sum over the shapes that ONNX Runtime computes: the default has no transposed convolution."""
    path = find_model("efficientnet-unet").onnx_path
    model = onnx.load(path)
    weights = {i.name: list(i.dims) for i in model.graph.initializer}
    # The weights are stored in half precision behind a cast.
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in weights]
    weights |= {node.output[0]: weights[node.input[0]] for node in casts}
    assert "ConvTranspose" not in {node.op_type for node in model.graph.node}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    names = [node.output[0] for node in convolutions]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    planes = session.run(names, {session.get_inputs()[0].name: np.zeros((1, 1, 256, 256), np.float32)})
    ran = sum(
        2 * plane.size * math.prod(weights[node.input[1]][1:]) for node, plane in zip(convolutions, planes, strict=True)
    )
    assert model_flop(path, (256, 256)) == ran
    assert ran == pytest.approx(9.45e9, rel=0.01)
    # The network reflects 16 px on every side of its tile before it starts: a quarter of the arithmetic at 256 px.
    for tile in ((512, 256), (128, 384)):
        assert model_flop(path, tile) * 288**2 == ran * (tile[0] + 32) * (tile[1] + 32)


def test_flop_of_what_is_no_network_is_refused(tmp_path, spec):
    (tmp_path / "model.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match="cannot be counted") as caught:
        model_flop(tmp_path / "model.onnx", TILE)
    assert "\n" not in str(caught.value)


def test_the_matrix_rate_is_one():
    assert 1e8 < matrix_rate(1, 128) < 1e14


def test_the_matrix_product_is_told_its_threads(monkeypatch):
    told = "import os, sys; print(float(os.environ['OPENBLAS_NUM_THREADS']) + float(sys.argv[1]) / 10)"
    monkeypatch.setattr(engines.measure.bench, "_MATRIX_PRODUCT", told)
    assert matrix_rate(3) == 3.3


def test_turns_alternate_and_medians_are_taken():
    order, figures = [], iter([1.0, 10.0, 5.0, 30.0, 2.0, 20.0])

    def measure(name):
        order.append(name)
        return next(figures)

    assert in_turns([lambda: measure("a"), lambda: measure("b")], turns=3) == [2.0, 20.0]
    assert "".join(order) == "ababab"


def test_calls_are_counted_once_at_least(monkeypatch):
    clock = iter([0.0, 0.5, 1.0, 1.5, 10.0, 12.0])
    monkeypatch.setattr(engines.measure.bench.time, "perf_counter", lambda: next(clock))
    assert calls_per_second(lambda: None, 1.2) == 2.0
    assert calls_per_second(lambda: None, 0) == 0.5


def test_figures_belong_together(spec, steady_machine):
    other = dataclasses.replace(spec, backend="onnxruntime", batch=1, threads=2)
    speeds, skipped = bench([spec, other], seconds=0.05)
    assert not skipped
    assert [(s.backend, s.batch, s.precision, s.tile_yx, s.threads) for s in speeds] == [
        ("openvino", 4, "fp32", TILE, 1),
        ("onnxruntime", 1, "fp32", TILE, 2),
    ]
    for s in speeds:
        assert s.version
        assert s.tiles_per_s > 0
        assert s.megapixels_per_s == pytest.approx(s.tiles_per_s * 32 * 64 / 1e6)
        assert s.floor_tiles_per_s == pytest.approx(s.threads * 1e9 / (36 * 32 * 64))
        assert s.share_of_floor == pytest.approx(s.tiles_per_s / s.floor_tiles_per_s)


def test_tiles_of_full_batches_are_counted(spec, steady_machine, monkeypatch):
    """More rows than there are reference tiles, and a stopwatch that makes each call last a second."""
    monkeypatch.setattr(engines.measure.bench, "calls_per_second", lambda run, seconds: float(len(run())))
    speeds, _ = bench([dataclasses.replace(spec, batch=50)])
    assert speeds[0].tiles_per_s == 50 * 50


def test_what_cannot_run_is_returned_with_its_reason(spec, steady_machine):
    unknown = "precision-of-nobody"
    specs = [
        dataclasses.replace(spec, precision=unknown),
        dataclasses.replace(spec, backend="warp"),
        dataclasses.replace(spec, tile_yx=(30, 64)),
        dataclasses.replace(spec, backend="identity"),
        spec,
    ]
    speeds, skipped = bench(specs, seconds=0.01)
    assert len(speeds) == 1
    assert [s.spec for s in skipped] == specs[:4]
    for one, words in zip(skipped, (unknown, "unknown engine 'warp'", "multiples of 8", "no network"), strict=True):
        assert words in str(one)
        assert "\n" not in str(one)


def test_a_runtime_that_is_not_installed_is_skipped(spec, steady_machine, monkeypatch):
    def missing():
        raise ImportError("No module named 'onnxruntime'")

    monkeypatch.setattr("engines.backends.onnxruntime.version", missing)
    speeds, skipped = bench([dataclasses.replace(spec, backend="onnxruntime")])
    assert not speeds
    assert "pip install" in skipped[0].reason


@pytest.mark.parametrize("backend", backend_names())
def test_backends_name_precisions_that_exist(backend):
    assert backend_module(backend).PRECISIONS
    assert set(backend_module(backend).PRECISIONS) <= set(PRECISIONS)


def test_an_unknown_backend_is_named_with_those_there_are():
    with pytest.raises(EngineUnavailableError, match=r"'warp'.*openvino"):
        backend_module("warp")


def test_the_table_is_markdown():
    header, rule, *rows = table([SPEED, SPEED]).splitlines()
    assert header.count("|") == rule.count("|") == rows[0].count("|") == 11
    assert rows == ["| openvino 2026.4 | generator | fp32 | 8 | 2 | 256x256 | 40.00 | 2.62 | 50.00 | 0.80 |"] * 2


def test_the_chart_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    plot([SPEED, dataclasses.replace(SPEED, batch=1)], tmp_path / "speed.png")
    assert cv2.imread(str(tmp_path / "speed.png")).std() > 10


def test_no_chart_without_figures_or_matplotlib(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no figures"):
        plot([], tmp_path / "speed.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(EngineUnavailableError, match=r"pip install '\.\[train\]'"):
        plot([SPEED], tmp_path / "speed.png")
