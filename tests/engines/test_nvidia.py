"""NVIDIA's two libraries: the types of the graph, real engines built without a GPU, and the runner on a fake one."""

import dataclasses
import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import array_api_compat.numpy
import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from skimage.color import deltaE_ciede2000

from engines.backends import _cuda, _tensorrt_build, _tensorrt_library, _tensorrt_runtime, tensorrt, tensorrt_rtx
from engines.convert.typed_graph import CONVOLUTION, UPSAMPLING, typed_graph
from engines.errors import EngineUnavailableError, ModelError
from engines.spec import EngineSpec, Model, find_model, shipped_models
from pipeline.colour.lab import lightness_from_samples
from tests import fake_gpu
from tests.models import make_model

SCANS = Path(__file__).parents[1] / "scans"
FAKE = {portable: _tensorrt_library.Library(fake_gpu.LIBRARY, "Fake", portable) for portable in (False, True)}
NARROW = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
WIDE_AT_END = {"fp32": 1, "fp16": 1, "bf16": 2}  # convolutions
needs_rtx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("tensorrt_rtx_bindings", "cuda"))),
    reason="the extra rtx is not installed: building engines not checked",
)


def _has_driver():
    try:
        _cuda.compute_capability()
    except (ImportError, EngineUnavailableError):
        return False
    return True


HAS_DRIVER = _has_driver()
needs_gpu = pytest.mark.skipif(not HAS_DRIVER, reason="no NVIDIA driver: deserializing and running not checked")
needs_no_gpu = pytest.mark.skipif(HAS_DRIVER, reason="a driver is here")


def spec_for(model, precision="fp32", batch=2, tile=None):
    side = max(64, model.card.size_multiple)
    return EngineSpec("tensorrt_rtx", str(model.folder), tile or (side, side), batch, precision=precision)


def tiles(count, tile, seed=0):
    return np.random.default_rng(seed).uniform(0, 100, (count, 1, *tile)).astype(np.float32)


def plain(graph, inputs):
    """The network's output by ONNX Runtime."""
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"lightness": inputs})[0]


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


def make_quantized(folder, zero_point=np.int8, scaled_bias=False):
    """A model folder whose int8.onnx has explicit quantize and dequantize nodes around its first convolution."""
    make_model(folder)
    rng = np.random.default_rng(3)
    weights = {
        "scale": np.float32(0.01),
        "zero": zero_point(0),
        "kernels": rng.integers(-100, 100, (4, 1, 3, 3)).astype(np.int8),
        "kernel_scales": np.full(4, 0.01, np.float32),
        "kernel_zeros": np.zeros(4, np.int8),
        "last": rng.normal(0, 0.3, (2, 4, 3, 3)).astype(np.float32),
    }
    weights |= (
        {"bias32": np.arange(4, dtype=np.int32) * 5000, "bias_scales": np.full(4, 1e-4, np.float32)}
        if scaled_bias
        else {"bias": np.arange(4, dtype=np.float32) / 2}
    )
    nodes = [
        helper.make_node("QuantizeLinear", ["lightness", "scale", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "scale", "zero"], ["back"]),
        helper.make_node("DequantizeLinear", ["kernels", "kernel_scales", "kernel_zeros"], ["real"], axis=0),
        *([helper.make_node("DequantizeLinear", ["bias32", "bias_scales"], ["bias"], axis=0)] * scaled_bias),
        helper.make_node("Conv", ["back", "real", "bias"], ["mixed"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["mixed", "last"], ["chroma"], pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("lightness", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("chroma", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "int8.onnx")
    card = dataclasses.replace(find_model(str(folder)).card, int8_sha256="x")
    return Model(folder, card)


# ------------------------------------------------------------------------------------------------ the graph's types


def types_of(graph):
    """(operation, type of its output) for each node, and the operations' names."""
    model = onnx.load_from_string(graph)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.output]}
    return [(node.op_type, types[node.output[0]]) for node in model.graph.node]


# Convolutions of the encoder's maps that the graph lists among the decoder's: they do not follow from an up-sampling.
WIDE_SKIPS = {"default": 3, "free": 3}


@pytest.mark.parametrize("name", shipped_models())
@pytest.mark.parametrize("precision", NARROW)
def test_only_the_decoder_up_to_its_last_convolutions_is_narrow(name, precision):
    nodes = types_of(typed_graph(find_model(name).onnx_path, precision))
    first = next(i for i, (operation, _) in enumerate(nodes) if operation in UPSAMPLING)
    convolutions = [i for i, (operation, _) in enumerate(nodes) if operation in CONVOLUTION]
    last = convolutions[-WIDE_AT_END[precision]]
    before, after = nodes[:first], nodes[last:]
    assert NARROW[precision] not in {kind for operation, kind in [*before, *after] if operation != "Cast"}
    between = [kind for operation, kind in nodes[first:last] if operation in CONVOLUTION | {"Relu", "Resize"}]
    assert len(between) >= 8
    assert sum(kind != NARROW[precision] for kind in between) == WIDE_SKIPS.get(name, 0)


@pytest.mark.parametrize("name", shipped_models())
def test_weights_are_constants_and_float32_stays_what_it_was(name):
    model = find_model(name)
    graph = typed_graph(model.onnx_path, "fp32")
    weights = {weight.name for weight in onnx.load_from_string(graph).graph.initializer}
    convolutions = [node for node in onnx.load_from_string(graph).graph.node if node.op_type in CONVOLUTION]
    assert all(set(node.input[1:]) <= weights for node in convolutions)
    inputs = np.repeat(tiles(1, (256, 256)) / 50 - 1, model.card.channels, axis=1)
    np.testing.assert_array_equal(plain(graph, inputs), plain(model.onnx_path.read_bytes(), inputs))


def rounded_like_a_gpu(graph, kind):
    """The same graph for a processor without type ``kind``: float32 operations, each result rounded to it."""
    model = onnx.load_from_string(graph)
    narrow = {weight.name for weight in model.graph.initializer if weight.data_type == kind}
    nodes = []
    for node in list(model.graph.node):
        if node.op_type == "Cast":
            nodes.append(node)
            narrow |= set(node.output) if node.attribute[0].i == kind else set()
            continue
        if not narrow & set(node.input):
            nodes.append(node)
            continue
        for i, name in enumerate(node.input):
            if name in narrow:
                nodes.append(helper.make_node("Cast", [name], [f"{name}.{node.output[0]}"], to=TensorProto.FLOAT))
                node.input[i] = f"{name}.{node.output[0]}"
        result = node.output[0]
        narrow.add(result)
        node.output[0] = f"{result}.exact"
        nodes += [node, helper.make_node("Cast", [f"{result}.exact"], [result], to=kind)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model.SerializeToString()


def real_tiles(side):
    """(4, 1, side, side) L*: the middle of each scan in tests/scans."""
    found = []
    for path in sorted(p for p in SCANS.iterdir() if p.suffix != ".tsv"):
        gray = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_ANYDEPTH)
        gray = gray if gray.ndim == 2 else gray[..., 0]
        top, left = (extent // 2 - side // 2 for extent in gray.shape)
        found.append(lightness_from_samples(np.ascontiguousarray(gray[top : top + side, left : left + side])))
    return np.stack(found)[:, None]


@pytest.mark.parametrize("precision", NARROW)
def test_narrow_colours_are_the_same_to_the_eye(precision):
    model = find_model("efficientnet-unet")
    lightness = real_tiles(256)
    inputs = lightness * np.float32(model.card.lightness_scale) + np.float32(model.card.lightness_offset)
    wide, narrow = (
        np.concatenate([lightness, plain(graph, inputs) * np.float32(model.card.chroma_scale)], axis=1)
        for graph in (
            typed_graph(model.onnx_path, "fp32"),
            rounded_like_a_gpu(typed_graph(model.onnx_path, precision), NARROW[precision]),
        )
    )
    difference = deltaE_ciede2000(np.moveaxis(wide, 1, -1), np.moveaxis(narrow, 1, -1))
    assert 0 < np.percentile(difference, 99.9) < 0.5


def test_a_network_without_upsampling_stays_as_it_is(tmp_path):
    model = find_model(str(make_model(tmp_path / "tiny")))
    assert typed_graph(model.onnx_path, "fp16") == typed_graph(model.onnx_path, "fp32")


def upsampling_model(folder, weight):
    """A model folder of a resize, a multiplication by ``weight`` and a last convolution."""
    make_model(folder)
    model = onnx.load(folder / "model.onnx")
    last, tanh = model.graph.node
    last.input[0] = "scaled"
    nodes = [
        helper.make_node("Resize", ["lightness", "", "scales"], ["larger"], mode="nearest"),
        helper.make_node("Mul", ["larger", "weight"], ["scaled"]),
        *[onnx.NodeProto.FromString(node.SerializeToString()) for node in (last, tanh)],
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    weights = {"scales": np.ones(4, np.float32), "weight": np.float32(weight)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items())
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_a_weight_beyond_float16_is_told(tmp_path):
    path = upsampling_model(tmp_path / "loud", 1e6)
    with pytest.raises(ModelError, match=r"weight weight: 1e\+06 does not fit float16.*use bf16") as caught:
        typed_graph(path, "fp16")
    one_line(caught)
    assert typed_graph(path, "bf16")


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x08\xff\xff\xff not a model")
    with pytest.raises(ModelError, match=r"model.onnx: cannot be prepared for fp16 .*export the model again") as caught:
        typed_graph(tmp_path / "model.onnx", "fp16")
    one_line(caught)


def test_a_scaled_int32_bias_is_multiplied_out(tmp_path):
    path = make_quantized(tmp_path / "tiny", scaled_bias=True).onnx_for("int8")
    graph = typed_graph(path, "int8")
    assert "bias" in {weight.name for weight in onnx.load_from_string(graph).graph.initializer}
    np.testing.assert_allclose(
        plain(graph, tiles(1, (32, 32)) / 100), plain(path.read_bytes(), tiles(1, (32, 32)) / 100), atol=1e-5
    )


def test_uint8_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"quantized to uint8.*quantize it symmetrically"):
        typed_graph(make_quantized(tmp_path / "tiny", np.uint8).onnx_for("int8"), "int8")


# --------------------------------------------------------------------------------- the real library, without a GPU


@pytest.fixture
def quantized(tmp_path):
    return make_quantized(tmp_path / "tiny")


def check_engine(model, precision):
    spec = spec_for(model, precision)
    compiled = tensorrt_rtx.build(model, spec)
    assert compiled[:4] == b"vtrt"
    assert len(compiled) > 10_000
    with _tensorrt_library.first_complaint(tensorrt_rtx.LIBRARY):
        graph = typed_graph(model.onnx_for(precision), precision)
        builder, network = _tensorrt_build.parsed(tensorrt_rtx.LIBRARY, graph, "model")
        config = _tensorrt_build.configured(tensorrt_rtx.LIBRARY, builder, network, spec)
    trt = tensorrt_rtx.LIBRARY.load()
    assert not config.get_flag(trt.BuilderFlag.TF32)
    assert network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert config.num_optimization_profiles == 1
    assert [network.get_input(0).name, network.get_output(0).name] == ["lightness", "chroma"]
    assert network.get_input(0).dtype == network.get_output(0).dtype == trt.float32
    return [network.get_layer(i) for i in range(network.num_layers)], trt


SUPPORTED = [
    (name, precision)
    for name in shipped_models()
    for precision in ("fp32", "fp16", "bf16")
    # its up-sampling is a transposed convolution, which the library has no bfloat16 kernel for
    if (name, precision) != ("pix2pix-unet", "bf16")
]


@needs_rtx
@pytest.mark.parametrize(("name", "precision"), SUPPORTED)
def test_shipped_models_become_engines(name, precision):
    layers, trt = check_engine(find_model(name), precision)
    heavy = [
        (layer.type, layer.get_output(0).dtype)
        for layer in layers
        if layer.type in (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION, trt.LayerType.RESIZE)
    ]
    narrow = {"fp32": trt.float32, "fp16": trt.float16, "bf16": trt.bfloat16}[precision]
    first = next(i for i, (kind, _) in enumerate(heavy) if kind != trt.LayerType.CONVOLUTION)
    last = [i for i, (kind, _) in enumerate(heavy) if kind != trt.LayerType.RESIZE][-WIDE_AT_END[precision]]
    assert {kind for _, kind in [*heavy[:first], *heavy[last:]]} == {trt.float32}
    wide = 0 if precision == "fp32" else WIDE_SKIPS.get(name, 0)
    assert sum(kind != narrow for _, kind in heavy[first:last]) == wide


@needs_rtx
def test_a_quantized_model_becomes_an_engine(quantized):
    layers, trt = check_engine(quantized, "int8")
    assert trt.int8 in {layer.get_output(0).dtype for layer in layers}


@needs_rtx
def test_what_the_library_has_no_kernel_for_is_one_line():
    model = find_model("pix2pix-unet")
    with pytest.raises(ModelError, match=r"cannot build it for 2 tiles of \d+x\d+ in bf16 .*use another") as caught:
        tensorrt_rtx.build(model, spec_for(model, "bf16"))
    one_line(caught)


@needs_rtx
def test_the_parsers_first_error_is_told(tmp_path):
    make_model(tmp_path / "tiny")
    network = onnx.load(tmp_path / "tiny" / "model.onnx")
    network.graph.node[1].op_type = "Sorcery"
    onnx.save(network, tmp_path / "tiny" / "model.onnx")
    model = Model(tmp_path / "tiny", find_model("efficientnet-unet").card)
    with pytest.raises(ModelError, match=r"model.onnx: TensorRT for RTX cannot read it \(.*Sorcery") as caught:
        tensorrt_rtx.build(model, spec_for(model))
    one_line(caught)


@needs_rtx
def test_a_model_of_one_size_refuses_others(tmp_path):
    model = find_model(str(make_model(tmp_path / "tiny", fixed_px=64)))
    assert tensorrt_rtx.build(model, spec_for(model, tile=(64, 64)))
    with pytest.raises(ModelError, match=r"batch of \(2, 1, 32, 64\): the model takes \(-1, 1, 64, 64\) only"):
        tensorrt_rtx.build(model, spec_for(model, tile=(32, 64)))


@needs_rtx
def test_a_network_of_other_outputs_is_refused(tmp_path):
    make_model(tmp_path / "tiny")
    network = onnx.load(tmp_path / "tiny" / "model.onnx")
    network.graph.node[1].CopyFrom(helper.make_node("ReduceSum", ["mixed"], ["chroma"], keepdims=0))
    del network.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.save(network, tmp_path / "tiny" / "model.onnx")
    model = Model(tmp_path / "tiny", find_model("efficientnet-unet").card)
    with pytest.raises(ModelError, match=r"input and output are lightness .* chroma \(\) .*export the model again"):
        tensorrt_rtx.build(model, spec_for(model))


@needs_rtx
def test_the_library_says_nothing_by_itself(capfd, caplog):
    model = find_model("efficientnet-unet")
    with caplog.at_level(1, "engines.backends._tensorrt_library"):
        tensorrt_rtx.build(model, spec_for(model))
    assert capfd.readouterr() == ("", "")
    assert any(record.message.startswith("TensorRT for RTX: ") for record in caplog.records)


@needs_rtx
def test_engines_are_built_for_any_gpu():
    assert tensorrt_rtx.library_version().startswith("1.")
    assert tensorrt_rtx.device() == "any"


@needs_rtx
@pytest.mark.filterwarnings("ignore:.*Timing cache operations:DeprecationWarning")
def test_building_keeps_the_timings_of_a_library_that_has_them(monkeypatch):
    """With the other library, whose timing cache is empty but has the same interface: TensorRT needs a GPU to build."""
    monkeypatch.setattr(_cuda, "compute_capability", lambda: (9, 0))
    monkeypatch.setattr(_tensorrt_build, "_timings", {})
    library = dataclasses.replace(tensorrt_rtx.LIBRARY, portable=False)
    model = find_model("efficientnet-unet")
    for _ in range(2):
        assert _tensorrt_build.build(library, model, spec_for(model, "fp16"))
        assert _tensorrt_build._timings[library.module]


@needs_rtx
@needs_no_gpu
def test_without_a_driver_opening_is_one_line():
    model = find_model("efficientnet-unet")
    for attempt in (
        tensorrt_rtx.version,
        lambda: tensorrt_rtx.open_engine(model, spec_for(model), b"vtrt"),
        tensorrt.device,
    ):
        with pytest.raises(EngineUnavailableError, match="no NVIDIA driver for CUDA 13 or later") as caught:
            attempt()
        one_line(caught)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="the extra tensorrt is installed")
def test_a_missing_library_is_an_import_error():
    for attempt in (tensorrt.version, tensorrt.library_version):
        with pytest.raises(ImportError):
            attempt()


# ------------------------------------------------------------------------------------------ the runner, on a fake GPU


@pytest.fixture
def tiny(tmp_path):
    return find_model(str(make_model(tmp_path / "tiny")))


def opened(model, portable=False, batch=3, namespace=None):
    compiled = typed_graph(model.onnx_path, "fp32")
    return _tensorrt_runtime.open_engine(FAKE[portable], model, spec_for(model, batch=batch), compiled, namespace)


def expected(model, lightness):
    inputs = lightness * np.float32(model.card.lightness_scale) + np.float32(model.card.lightness_offset)
    return plain(model.onnx_path.read_bytes(), inputs) * np.float32(model.card.chroma_scale)


HOST_CALLS = ["cudaMemcpyAsync", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaEventRecord", "cudaEventSynchronize"]
DEVICE_CALLS = [
    *("cudaEventRecord", "cudaStreamWaitEvent"),
    *("cudaMemcpyAsync", "cudaGraphLaunch", "cudaMemcpyAsync"),
    *("cudaEventRecord", "cudaStreamWaitEvent"),
]


def given_back(gpu):
    return not gpu.alive and not gpu.mistakes and not gpu.bound


@pytest.mark.parametrize("portable", FAKE)
@pytest.mark.parametrize("capturable", [True, False])
def test_predicts_what_the_network_says(monkeypatch, tiny, portable, capturable):
    gpu = fake_gpu.install(monkeypatch, capability=(8, 9))
    gpu.capturable = capturable
    with opened(tiny, portable) as engine:
        for count, seed in ((3, 0), (1, 1), (2, 2)):
            some = tiles(count, (64, 64), seed)
            np.testing.assert_allclose(engine.predict(some), expected(tiny, some), atol=1e-4)
    assert ("cudaGraphLaunch" in gpu.calls) == capturable
    assert given_back(gpu)


def test_a_tile_alone_equals_the_tile_in_a_batch(monkeypatch, tiny):
    fake_gpu.install(monkeypatch)
    some = tiles(3, (64, 64))
    with opened(tiny) as engine:
        together = engine.predict(some)
        alone = np.concatenate([engine.predict(some[i : i + 1]) for i in range(3)])
    assert together.tobytes() == alone.tobytes()


def test_threads_share_two_lanes(monkeypatch, tiny):
    gpu = fake_gpu.install(monkeypatch)
    batches = [tiles(3, (64, 64), seed) for seed in range(24)]
    with opened(tiny) as engine, ThreadPoolExecutor(6) as pool:
        for batch, chroma in zip(batches, pool.map(engine.predict, batches), strict=True):
            np.testing.assert_allclose(chroma, expected(tiny, batch), atol=1e-4)
        assert gpu.calls.count("cudaStreamCreateWithFlags") == _tensorrt_runtime.SLOTS == 2
    assert given_back(gpu)


def test_every_single_call_may_fail(monkeypatch, tiny):
    """Opening either works, without a graph, or fails in one line; all memory goes back in any case."""
    gpu = fake_gpu.install(monkeypatch)
    with opened(tiny) as engine:
        engine.predict(tiles(1, (64, 64)))
    calls = gpu.calls
    survived, messages = set(), []
    for number, name in enumerate(calls):
        gpu = fake_gpu.install(monkeypatch)
        gpu.fail_at = number
        some = tiles(2, (64, 64), number)
        try:
            with opened(tiny) as engine:
                chroma = engine.predict(some)
        except (EngineUnavailableError, ModelError) as error:
            messages.append(str(error))
        else:
            np.testing.assert_allclose(chroma, expected(tiny, some), atol=1e-4)
            survived.add(name)
        assert given_back(gpu), (number, name, gpu.alive, gpu.mistakes)
    assert {"cudaStreamEndCapture", "cudaGraphInstantiate", "execute_async_v3", "cudaFree"} <= survived
    assert "cudaMalloc" not in survived
    assert all("\n" not in message and "; " in message for message in messages)


def test_out_of_memory_names_the_remedy(monkeypatch, tiny):
    for name in ("cudaMalloc", "create_execution_context"):
        gpu = fake_gpu.install(monkeypatch)
        with opened(tiny):
            number = gpu.calls.index(name)
        gpu = fake_gpu.install(monkeypatch)
        gpu.fail_at, gpu.fail_with = number, fake_gpu.Error.cudaErrorMemoryAllocation
        with pytest.raises(EngineUnavailableError, match=r"out of GPU memory.*smaller --batch or fewer --workers"):
            opened(tiny)
        assert given_back(gpu)


def test_a_failed_batch_does_not_lose_its_lane(monkeypatch, tiny):
    gpu = fake_gpu.install(monkeypatch)
    some = tiles(1, (64, 64))
    with opened(tiny) as engine:
        for name in HOST_CALLS:
            gpu.fail_at = len(gpu.calls) + HOST_CALLS.index(name)
            with pytest.raises(EngineUnavailableError, match=f"{name}: cudaErrorLaunchFailure"):
                engine.predict(some)
        np.testing.assert_allclose(engine.predict(some), expected(tiny, some), atol=1e-4)
    assert given_back(gpu)


def test_a_closed_engine_says_so(monkeypatch, tiny):
    fake_gpu.install(monkeypatch)
    engine = opened(tiny)
    engine.close()
    engine.close()
    for _ in range(3):
        with pytest.raises(EngineUnavailableError, match="engine is closed"):
            engine.predict(tiles(1, (64, 64)))


def test_an_engine_that_cannot_be_loaded_is_to_be_compiled_again(monkeypatch, tiny):
    gpu = fake_gpu.install(monkeypatch)
    with pytest.raises(ModelError, match=r"of 5 bytes cannot be loaded \(magic tag.*compile it again") as caught:
        _tensorrt_runtime.open_engine(FAKE[False], tiny, spec_for(tiny), b"stale")
    one_line(caught)
    assert given_back(gpu)


def test_an_engine_for_other_tiles_is_to_be_compiled_again(monkeypatch, tmp_path):
    gpu = fake_gpu.install(monkeypatch)
    model = find_model(str(make_model(tmp_path / "fixed", fixed_px=32)))
    with pytest.raises(ModelError, match=r"does not take batches of \(3, 1, 64, 64\).*compile it again"):
        opened(model)
    assert given_back(gpu)


@pytest.mark.parametrize(
    ("capability", "portable", "usable"),
    [((9, 0), False, True), ((8, 9), True, True), ((9, 0), True, False), ((7, 5), True, False)],
)
def test_the_gpu_must_be_one_that_the_library_knows(monkeypatch, capability, portable, usable):
    fake_gpu.install(monkeypatch, capability=capability)
    if usable:
        assert _tensorrt_library.usable_version(FAKE[portable]) == "1.2.3"
    else:
        with pytest.raises(EngineUnavailableError, match=r"compute capability \d\.\d.*use the engine tensorrt"):
            _tensorrt_library.usable_version(FAKE[portable])
    assert _tensorrt_library.device(FAKE[portable]) == ("any" if portable else f"sm_{capability[0]}{capability[1]}")


@pytest.mark.parametrize("error", ["cudaErrorInsufficientDriver", "cudaErrorNoDevice", "cudaErrorLaunchFailure"])
def test_a_driver_that_fails_is_one_line(monkeypatch, error):
    gpu = fake_gpu.install(monkeypatch)
    gpu.fail_at, gpu.fail_with = 0, fake_gpu.Error[error]
    with pytest.raises(EngineUnavailableError, match=r"driver|cannot be used") as caught:
        _tensorrt_library.usable_version(FAKE[False])
    one_line(caught)


def test_a_driver_that_shows_no_gpu_is_told(monkeypatch):
    fake_gpu.install(monkeypatch, devices=0)
    with pytest.raises(EngineUnavailableError, match="shows no GPU"):
        _tensorrt_library.device(FAKE[False])


# ------------------------------------------------------------- tiles of the device, on a fake GPU with a fake library


@pytest.fixture(params=["late", "eager"])
def there(request, monkeypatch):
    """A GPU whose streams work as late as they may, or as soon; with an array library."""
    gpu = fake_gpu.install(monkeypatch, capability=(8, 9))
    gpu.eager = request.param == "eager"
    return gpu, fake_gpu.DeviceArrays(gpu)


@pytest.mark.parametrize("portable", FAKE)
@pytest.mark.parametrize("capturable", [True, False])
def test_tiles_of_the_device_get_the_bytes_of_the_hosts(there, tiny, portable, capturable):
    gpu, xp = there
    gpu.capturable = capturable
    with opened(tiny, portable, namespace=xp) as engine:
        assert engine.array_namespace is xp
        for count, seed in ((3, 0), (1, 1), (2, 2)):
            some = tiles(count, (64, 64), seed)
            made = engine.predict(engine.to_device(some))
            assert isinstance(made, fake_gpu.DeviceArray)
            assert made.shape == (count, 2, 64, 64)
            assert engine.to_host(made).tobytes() == engine.predict(some).tobytes()
            np.testing.assert_allclose(engine.to_host(made), expected(tiny, some), atol=1e-4)
    assert given_back(gpu)


def test_streams_wait_for_each_other_and_the_host_for_none(there, tiny):
    gpu, xp = there
    with opened(tiny, namespace=xp) as engine:
        some = engine.to_device(tiles(3, (64, 64)))
        theirs, mine, before = xp.stream, {h for h, (kind, _) in gpu.alive.items() if kind == "device"}, len(gpu.told)
        sizes = {int(h): len(gpu.item(h)[1]) for h in mine}
        made = engine.predict(some)
        told = gpu.told[before:]
        assert [name for name, *_ in told] == DEVICE_CALLS
        (_, given, first), (_, waiting, awaited, _), copy_in, launch, copy_out = told[:5]
        (_, done, last), (_, after, end, _) = told[5:]
        assert (first, waiting, awaited) == (theirs, last, given)
        assert (after, end) == (theirs, done)
        assert given != done
        assert copy_in[5] == launch[2] == copy_out[5] == waiting != theirs
        assert {copy_in[4].name, copy_out[4].name} == {"cudaMemcpyDeviceToDevice"}
        (_, inputs, source, size_in, *_), (_, target, outputs, size_out, *_) = copy_in, copy_out
        assert {inputs, outputs} <= mine
        assert not {source, target} & mine
        assert (sizes[inputs], sizes[outputs]) == (size_in, size_out) == (3 * 64 * 64 * 4, 3 * 2 * 64 * 64 * 4)
        np.testing.assert_allclose(engine.to_host(made), expected(tiny, tiles(3, (64, 64))), atol=1e-4)
    assert given_back(gpu)


def test_the_stream_is_the_one_in_which_the_library_works_at_that_time(there, tiny):
    gpu, xp = there
    with opened(tiny, namespace=xp) as engine:
        for seed in range(3):
            xp.stream = xp.new_stream()
            some = tiles(3, (64, 64), seed)
            np.testing.assert_allclose(
                engine.to_host(engine.predict(engine.to_device(some))), expected(tiny, some), atol=1e-4
            )
    assert given_back(gpu)


def test_a_host_far_ahead_takes_no_more_memory(there, tiny):
    gpu, xp = there
    with opened(tiny, namespace=xp) as engine:
        for seed in range(12):
            taken = xp.taken
            made = engine.predict(engine.to_device(tiles(3, (64, 64), seed)))
            assert xp.taken == taken or seed < 4
        np.testing.assert_allclose(engine.to_host(made), expected(tiny, tiles(3, (64, 64), 11)), atol=1e-4)
    assert given_back(gpu)


def test_tiles_of_the_host_and_of_the_device_take_turns(there, tiny):
    gpu, xp = there
    made = {}
    with opened(tiny, namespace=xp) as engine:
        for seed in range(12):
            some = tiles(3, (64, 64), seed)
            made[seed] = engine.predict(engine.to_device(some) if seed % 3 else some)
    # Closing has waited for what was under way; the library's arrays outlive the engine.
    for seed, chroma in made.items():
        wanted = expected(tiny, tiles(3, (64, 64), seed))
        np.testing.assert_allclose(chroma if seed % 3 == 0 else engine.to_host(chroma), wanted, atol=1e-4)
    assert given_back(gpu)


def test_threads_share_two_lanes_on_the_device(there, tiny):
    gpu, xp = there
    batches = [tiles(3, (64, 64), seed) for seed in range(24)]
    with opened(tiny, namespace=xp) as engine, ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda batch: engine.predict(engine.to_device(batch)), batches))
        for batch, chroma in zip(batches, made, strict=True):
            np.testing.assert_allclose(engine.to_host(chroma), expected(tiny, batch), atol=1e-4)
    assert given_back(gpu)


def test_every_single_call_of_a_device_batch_may_fail(there, tiny):
    """No work is left that touches the freed arrays, the lane serves the next batch, and all goes back."""
    gpu, xp = there
    some = tiles(2, (64, 64))
    with opened(tiny, namespace=xp) as engine:
        slots = [item for kind, item in gpu.alive.values() if kind == "stream"]
        for number, name in enumerate(DEVICE_CALLS):
            given = engine.to_device(some)
            gpu.fail_at = len(gpu.calls) + number
            with pytest.raises(EngineUnavailableError, match=f"^{name}: cudaErrorLaunchFailure.*another engine"):
                engine.predict(given)
            assert not any(lane.work for lane in slots)
            assert gpu.calls[-1] == "cudaStreamSynchronize"
            for seed in range(3):
                more = tiles(3, (64, 64), seed)
                chroma = engine.to_host(engine.predict(engine.to_device(more)))
                np.testing.assert_allclose(chroma, expected(tiny, more), atol=1e-4)
    assert given_back(gpu)


def test_a_network_that_does_not_start_is_one_line_on_the_device_too(there, tiny):
    gpu, xp = there
    gpu.capturable = False
    with opened(tiny, namespace=xp) as engine:
        gpu.fail_at = len(gpu.calls) + DEVICE_CALLS.index("cudaGraphLaunch")
        with pytest.raises(EngineUnavailableError, match="a batch could not be started") as caught:
            engine.predict(engine.to_device(tiles(1, (64, 64))))
        one_line(caught)
    assert given_back(gpu)


def test_what_the_array_library_raises_is_one_line(there, tiny, monkeypatch):
    gpu, xp = there
    with opened(tiny, namespace=xp) as engine:
        some = engine.to_device(tiles(1, (64, 64)))
        xp.out_of_memory = True
        for attempt in (lambda: engine.predict(some), lambda: engine.to_device(tiles(1, (64, 64)))):
            with pytest.raises(EngineUnavailableError, match=r"CuPy: out of GPU memory.*smaller --batch") as caught:
                attempt()
            one_line(caught)
        xp.out_of_memory = False

        def failing(*_):
            raise RuntimeError("cudaErrorLaunchFailure:\nunspecified")

        with monkeypatch.context() as patch:
            patch.setattr(xp, "finished", failing)
            with pytest.raises(EngineUnavailableError, match=r"^CuPy: cudaErrorLaunchFailure: unspecified: ") as caught:
                engine.to_host(engine.predict(some))
            one_line(caught)
    with pytest.raises(EngineUnavailableError, match="engine is closed"):
        engine.predict(some)
    assert given_back(gpu)


def test_without_cupy_arrays_are_numpys(monkeypatch, tiny):
    fake_gpu.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", None)
    with opened(tiny) as engine:
        assert engine.array_namespace is array_api_compat.numpy
        some = tiles(2, (64, 64))
        assert engine.to_host(engine.predict(engine.to_device(some))).tobytes() == engine.predict(some).tobytes()


@pytest.mark.parametrize("lacking", ["nothing", "compiler", "stream", "arithmetic"])
def test_an_array_library_is_tried_before_it_is_used(monkeypatch, caplog, lacking):
    """CuPy is installed without NVIDIA's compiler, say, which it first looks for when it needs a kernel."""
    xp = fake_gpu.DeviceArrays(fake_gpu.install(monkeypatch))

    def failing(*_):
        raise OSError("libnvrtc.so.13:\ncannot open shared object file")

    if lacking == "compiler":
        monkeypatch.setattr(fake_gpu.DeviceArray, "__mul__", failing)
    if lacking == "stream":
        monkeypatch.setattr(fake_gpu.DeviceArray, "__cuda_array_interface__", {"data": (1, False), "version": 2})
    if lacking == "arithmetic":
        monkeypatch.setattr(fake_gpu.DeviceArray, "__mul__", lambda one, other: one)
    monkeypatch.setitem(sys.modules, "fake_arrays", xp)
    found = _cuda.array_namespace("fake_arrays")
    assert found is (xp if lacking == "nothing" else None)
    assert [record.message.count("\n") for record in caplog.records] == [0] * (lacking != "nothing")
    assert all("CuPy cannot be used, blocks are made in the host's memory" in r.message for r in caplog.records)


@needs_rtx
def test_the_fake_has_the_names_of_the_real_runtime():
    real = importlib.import_module(fake_gpu.RUNTIME)
    for name in (name for name in vars(fake_gpu.FakeCuda) if name.startswith("cuda")):
        assert hasattr(real, name), name
    for enum in ("cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode", "cudaDeviceAttr"):
        assert {m.name for m in getattr(fake_gpu.FakeCuda, enum)} <= {m.name for m in getattr(real, enum)}


# ------------------------------------------------------------------------------------------------- with a real GPU

BACKENDS = [tensorrt, tensorrt_rtx]


def usable_or_skip(backend):
    try:
        backend.version()
    except (ImportError, EngineUnavailableError) as error:
        pytest.skip(str(error))


@needs_gpu
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_on_a_gpu_colours_are_those_of_the_processor(backend, precision):
    usable_or_skip(backend)
    model, lightness = find_model("efficientnet-unet"), real_tiles(256)
    spec = EngineSpec("", str(model.folder), (256, 256), len(lightness), precision=precision)
    with backend.open_engine(model, spec, backend.build(model, spec)) as engine:
        chroma = engine.predict(lightness)
        alone = np.concatenate([engine.predict(tile[None]) for tile in lightness])
    assert chroma.tobytes() == alone.tobytes()
    results = (np.concatenate([lightness, part], axis=1) for part in (expected(model, lightness), chroma))
    difference = deltaE_ciede2000(*(np.moveaxis(result, 1, -1) for result in results))
    assert np.percentile(difference, 99.9) < 0.5


@needs_gpu
@pytest.mark.parametrize("backend", BACKENDS)
def test_on_a_gpu_threads_share_an_engine(backend):
    usable_or_skip(backend)
    model = find_model("efficientnet-unet")
    spec = EngineSpec("", str(model.folder), (256, 256), 4, precision="fp16")
    batches = [tiles(4, (256, 256), seed) for seed in range(8)]
    engine = backend.open_engine(model, spec, backend.build(model, spec))
    with engine, ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(engine.predict, batches))
        for chroma, batch in zip(shared, batches, strict=True):
            np.testing.assert_array_equal(chroma, engine.predict(batch))


@needs_gpu
@pytest.mark.parametrize("backend", BACKENDS)
def test_on_a_gpu_tiles_of_the_device_get_the_bytes_of_the_hosts(backend):
    pytest.importorskip("cupy", reason="CuPy is not installed: tiles of the device not checked")
    usable_or_skip(backend)
    model = find_model("efficientnet-unet")
    spec = EngineSpec("", str(model.folder), (256, 256), 4, precision="fp16")
    batches = [tiles(count, (256, 256), count) for count in (4, 1, 3, 2)] * 4
    with backend.open_engine(model, spec, backend.build(model, spec)) as engine:
        assert engine.array_namespace is not array_api_compat.numpy
        made = [engine.predict(engine.to_device(batch)) for batch in batches]
        for chroma, batch in zip(made, batches, strict=True):
            np.testing.assert_array_equal(engine.to_host(chroma), engine.predict(batch))
