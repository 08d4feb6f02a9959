"""The palette network by every backend: the processor's, and the GPU's as far as they go without one."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from engines.backends import _tensorrt_build, _tensorrt_library, _tensorrt_runtime, tensorrt_rtx
from engines.convert.typed_graph import typed_row
from engines.errors import EngineUnavailableError, ModelError
from engines.measure.bench import flop_of
from engines.measure.parity import BOUNDS, compare, measure_parity, reference_inputs
from engines.measure.reference_tiles import reference_tiles
from engines.palette import BATCH, PALETTE_BYTES, PaletteNetwork, gray_of, mean_colours, palette_spec, shares_of
from engines.registry import computes, model_for, open_engine, precisions_of
from engines.select import choose_palette
from engines.spec import PALETTE, find_model
from pipeline.colour.lab import rgb_from_lab
from pipeline.tiling.palette import mean_ab
from tests import fake_gpu
from tests.backends import NETWORKS
from tests.engines.test_nvidia import NARROW, rounded_like_a_gpu

MODEL = find_model("default")
NETWORK = MODEL.as_network(PALETTE)
SIDE = MODEL.card.palette.side_px
PLACES = [(name, each) for name in NETWORKS if computes(name, PALETTE) for each in precisions_of(name, NETWORK)]


def logits(graph, gray):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: gray})[0]


@pytest.fixture(scope="module")
def seen():
    """Two views, and the plain network's answer: stem and head one after the other."""
    gray = reference_inputs(NETWORK, (SIDE, SIDE), 2)
    stem, head = (path.read_bytes() for path in MODEL.palette_paths())
    return gray, logits(head, logits(stem, gray))


@pytest.mark.parametrize(("backend", "precision"), PLACES)
def test_every_backend_makes_the_palette_of_the_reference(backend, precision):
    parity = measure_parity(palette_spec(MODEL, 2, backend, precision), 4, 2)
    assert parity.passes, str(parity)
    assert parity.bound == BOUNDS[precision]


def test_the_row_as_one_graph_is_the_two_files(seen):
    gray, expected = seen
    np.testing.assert_allclose(logits(typed_row(MODEL.palette_paths(), "fp32"), gray), expected, atol=1e-3)


@pytest.mark.parametrize("precision", NARROW)
def test_narrow_palettes_are_the_same_to_the_eye(seen, precision):
    gray, expected = seen
    graph = rounded_like_a_gpu(typed_row(MODEL.palette_paths(), precision), NARROW[precision])
    wide, narrow = (mean_colours(each, MODEL.card.palette) for each in (expected, logits(graph, gray)))
    lightness = np.full((2, 1, *wide.shape[2:]), 50, np.float32)
    assert 0 < compare(wide, narrow, lightness).p999 < BOUNDS[precision]


def test_a_gpus_provider_is_given_nothing_to_do_with_shapes(tmp_path):
    """What it has no kernels for would be refused there; folded at the level that comes before providers choose."""
    for path in MODEL.palette_paths():
        settings = onnxruntime.SessionOptions()
        settings.add_free_dimension_override_by_name("batch", BATCH)
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        settings.optimized_model_filepath = str(tmp_path / path.name)
        settings.log_severity_level = 3
        onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        kinds = collections.Counter(node.op_type for node in onnx.load(tmp_path / path.name).graph.node)
        assert not kinds.keys() & {"Shape", "Gather", "Unsqueeze", "ConstantOfShape", "Where", "Expand", "Cast"}
        assert kinds["Softmax"] >= 4


def test_the_runner_takes_it_on_a_fake_gpu(monkeypatch, seen):
    gray, expected = seen
    gpu = fake_gpu.install(monkeypatch, capability=(9, 0))
    library = _tensorrt_library.Library(fake_gpu.LIBRARY, "Fake", portable=False)
    spec = palette_spec(MODEL, 1, "tensorrt")
    graph = typed_row(MODEL.palette_paths(), "fp32")
    with _tensorrt_runtime.open_engine(library, NETWORK, spec, graph) as engine:
        np.testing.assert_allclose(engine.predict(gray), expected, atol=1e-3)
        np.testing.assert_array_equal(engine.predict(gray[:1]), engine.predict(gray)[:1])
    assert not gpu.alive
    assert not gpu.mistakes


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("tensorrt_rtx_bindings", "cuda"))), reason="the extra rtx is not installed"
)
def test_it_becomes_a_real_engine_whose_products_are_narrow():
    assert tensorrt_rtx.build(NETWORK, palette_spec(MODEL, 1, "tensorrt_rtx", "fp16"))[:4] == b"vtrt"
    trt = tensorrt_rtx.LIBRARY.load()
    with _tensorrt_library.first_complaint(tensorrt_rtx.LIBRARY):
        graph = typed_row(MODEL.palette_paths(), "fp16")
        _, network = _tensorrt_build.parsed(tensorrt_rtx.LIBRARY, graph, "model", NETWORK.output_shape((SIDE, SIDE))[0])
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    kinds = {kind: [x.get_output(0).dtype for x in layers if x.type == kind] for kind in {x.type for x in layers}}
    assert set(kinds[trt.LayerType.MATRIX_MULTIPLY]) == {trt.float16}
    assert set(kinds[trt.LayerType.SOFTMAX]) == {trt.float32}


def test_what_the_pipeline_has_too_is_the_same():
    lightness = np.linspace(0, 100, 4096, dtype=np.float32).reshape(64, 64)
    rgb = rgb_from_lab(lightness, np.zeros((2, 64, 64), np.float32))
    np.testing.assert_allclose(gray_of(lightness), rgb[..., 0], atol=1e-6)
    card = MODEL.card.palette
    scores = np.random.default_rng(0).normal(0, 3, (2, len(card.colours_ab), 3, 4)).astype(np.float32)
    colours_ab = np.array(card.colours_ab, np.float32) * np.float32(card.gain)
    expected = [mean_ab(shares, colours_ab) for shares in shares_of(scores, card)]
    np.testing.assert_allclose(mean_colours(scores, card), expected, atol=1e-4)


@pytest.mark.parametrize("change", [{"stem_sha256": "0"}, {"sha256": "0"}, {"gain": 2.0}, {"temperature": 0.3}])
def test_its_hash_is_of_all_that_decides_its_colours(change):
    """Settings of results have it: by another stem or reading the same head makes other colours."""
    card = MODEL.card.palette
    assert NETWORK.card.sha256 == card.network_sha256
    assert dataclasses.replace(card, **change).network_sha256 != card.network_sha256
    assert dataclasses.replace(card, scan_doubt=()).network_sha256 == card.network_sha256


def test_what_it_takes_is_counted():
    """24 products of a block's width with itself a patch, the attention's, and the patches and colours themselves."""
    tokens, width, blocks = 257, 384, 12
    colours = len(MODEL.card.palette.colours_ab)
    one = 24 * tokens * width**2 + 4 * tokens**2 * width
    assert flop_of(NETWORK, (SIDE, SIDE)) == pytest.approx(blocks * one, rel=0.1)
    assert flop_of(NETWORK, (SIDE, SIDE)) > blocks * one + 2 * 256 * width * colours


def test_any_number_of_threads_makes_the_same_palette():
    lightness = reference_tiles((SIDE, SIDE), 1)[0, 0]
    for precision in precisions_of("openvino", NETWORK):
        made = []
        for threads in (1, 2):
            with PaletteNetwork(palette_spec(MODEL, threads, "openvino", precision)) as network:
                made.append(network.see(lightness))
        assert made[0].tobytes() == made[1].tobytes()


_PEAK = """
import sys
import numpy as np
from engines.palette import PaletteNetwork, palette_spec
from engines.spec import find_model

def kib(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])

model = find_model("default")
lightness = np.full((model.card.palette.side_px,) * 2, 50, np.float32)
before = kib("VmRSS:")
with PaletteNetwork(palette_spec(model, 1, *sys.argv[1:])) as network:
    network.see(lightness)
print((kib("VmHWM:") - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("precision", precisions_of("openvino", NETWORK))
def test_its_memory_is_what_plans_reckon_with(precision):
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, "openvino", precision], capture_output=True, text=True, check=True
    )
    assert 0.75 * PALETTE_BYTES < int(done.stdout) < 1.1 * PALETTE_BYTES


def test_what_computes_no_palettes_leaves_them_to_the_processors():
    choice = choose_palette(MODEL, "identity", "fp32")
    assert (choice.backend, choice.precision) == ("openvino", "fp32")
    with pytest.raises(EngineUnavailableError, match="identity computes no palette networks"):
        model_for("identity", "default", PALETTE)
    with pytest.raises(ModelError, match="has no palette network"):
        open_engine(palette_spec(find_model("pix2pix-unet")))


def test_a_precision_that_palettes_do_not_have_is_chosen_by_parity():
    assert choose_palette(MODEL, "onnxruntime", "int8").precision == "fp32"
    assert precisions_of("onnxruntime", NETWORK) == ["fp32"]
