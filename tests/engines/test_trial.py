"""Which precision a run takes by itself: the fastest that keeps the picture, and what is said of the others.

The int8 files of these models are not quantized: what a trial sees of one is its colours and its time.
"""

import hashlib
import json
import threading

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.convert.quantize import write_int8_model
from engines.errors import EngineUnavailableError, ModelError
from engines.measure import autotune
from engines.measure.parity import Parity
from engines.registry import open_engine, precisions_of
from engines.select import choose
from engines.spec import EngineSpec, ModelCard, find_model
from tests.models import KERNELS, make_model

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COLORIZE_ARCHIVE_CACHE", str(tmp_path / "cache"))


def network(gain=1.0, rounds=0):
    """The tiny network, its colours times ``gain``, after ``rounds`` wide convolutions whose result does not count."""
    wide = np.zeros((32, 32, 3, 3), np.float32)
    nodes = [helper.make_node("Conv", ["lightness", "first"], ["wide0"], pads=[1, 1, 1, 1])]
    nodes += [
        helper.make_node("Conv", [f"wide{i}", "wide"], [f"wide{i + 1}"], pads=[1, 1, 1, 1]) for i in range(rounds)
    ]
    nodes += [
        helper.make_node("Conv", [f"wide{rounds}", "none"], ["nothing"]),
        helper.make_node("Conv", ["lightness", "kernels"], ["mixed"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["mixed", "nothing"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["chroma"]),
    ]
    weights = {
        "first": np.zeros((32, 1, 3, 3), np.float32),
        "wide": wide,
        "none": np.zeros((2, 32, 1, 1), np.float32),
        "kernels": KERNELS[:, None] * np.float32(gain),
    }
    ends = [(name, [f"n_{name}", planes, "h", "w"]) for name, planes in (("lightness", 1), ("chroma", 2))]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends]
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", values[:1], values[1:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return made.SerializeToString()


def model_of(folder, whole, small):
    """A model folder whose network is ``whole`` and whose int8 file is ``small``."""
    (folder / "plain").mkdir(parents=True)
    (folder / "plain" / "model.onnx").write_bytes(whole)
    card = ModelCard("tiny", "convolution", 0.02, -1.0, 110.0, 8, hashlib.sha256(whole).hexdigest())
    (folder / "plain" / "card.json").write_text(card.to_json())
    return write_int8_model(find_model(str(folder / "plain")), small, folder / "both")


def test_one_that_changes_the_picture_is_refused_with_its_figure(tmp_path):
    model = model_of(tmp_path, network(rounds=2), network(gain=1.2))
    choice, _ = choose("onnxruntime", str(model.folder))
    assert choice.precision == "fp32"
    assert "int8 refused" in choice.reason
    assert "bound 1.5" in choice.reason
    # By name it is taken as it is.
    assert choose("onnxruntime", str(model.folder), "int8")[0].precision == "int8"


def test_one_that_keeps_it_and_is_faster_is_taken_and_says_so(tmp_path):
    model = model_of(tmp_path, network(rounds=2), network())
    choice, _ = choose("onnxruntime", str(model.folder))
    assert choice.precision == "int8"
    assert "0.00 CIEDE2000" in choice.reason
    assert "as fast as fp32" in choice.reason


def test_one_that_is_not_faster_is_not_taken(tmp_path):
    model = model_of(tmp_path, network(), network(rounds=2))
    assert choose("onnxruntime", str(model.folder))[0].precision == "fp32"


def test_it_is_measured_once_by_whoever_comes_first(tmp_path, monkeypatch):
    model = model_of(tmp_path, network(rounds=2), network())
    calls, real = [], autotune.measure_parity
    monkeypatch.setattr(autotune, "measure_parity", lambda *words: calls.append(words) or real(*words))
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(choose("onnxruntime", str(model.folder))[0])) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 2  # int8 and fp32
    assert len(set(made)) == 1
    (kept,) = (tmp_path / "cache" / "trials").glob("*.json")
    assert {each["precision"] for each in json.loads(kept.read_text())["trials"]} == {"int8", "fp32"}
    kept.write_text("half")
    choose("onnxruntime", str(model.folder))
    assert len(calls) == 4


def test_a_precision_that_the_network_cannot_have_is_left_out_with_the_reason(tmp_path):
    """Without an up-sampling step there is nothing to compute in bfloat16."""
    model = find_model(str(make_model(tmp_path / "tiny")))
    if "bf16" not in precisions_of("openvino", model):
        pytest.skip("this processor has no bfloat16 arithmetic")
    choice, _ = choose("openvino", str(model.folder))
    assert choice.precision == "fp32"
    assert "up-sampling" in choice.reason
    with pytest.raises(ModelError, match="up-sampling"):
        open_engine(EngineSpec("openvino", str(model.folder), (32, 32), 2, precision="bf16"))


def test_what_a_backend_does_not_have_is_one_line(tmp_path):
    folder = str(make_model(tmp_path / "tiny"))
    with pytest.raises(EngineUnavailableError, match=r"onnxruntime cannot compute in fp16.*another --precision"):
        choose("onnxruntime", folder, "fp16")
    with pytest.raises(ModelError, match=r"no int8\.onnx.*engines quantize"):
        choose("onnxruntime", folder, "int8")
    with pytest.raises(EngineUnavailableError, match=r"'fp7'.*fp32"):
        choose("onnxruntime", folder, "fp7")
    with pytest.raises(EngineUnavailableError, match="cannot compute in fp16"):
        open_engine(EngineSpec("onnxruntime", folder, (32, 32), 2, precision="fp16"))


@pytest.mark.parametrize("name", ["default", "efficientnet-unet", "pix2pix-unet"])
def test_bfloat16_keeps_the_shipped_models_pictures(name):
    from engines.measure.parity import measure_parity

    model = find_model(name)
    if "bf16" not in precisions_of("openvino", model):
        pytest.skip("this processor has no bfloat16 arithmetic")
    parity = measure_parity(EngineSpec("openvino", str(model.folder), (256, 256), 4, 2, 1, "bf16"), 12, 4)
    assert parity.passes, str(parity)


def parity_of(p999, bound=1.5):
    return Parity(0.0, p999, 0.0, 0, True, 0.0, 24, bound)


def test_a_failure_that_may_pass_is_not_kept(tmp_path, monkeypatch):
    model = model_of(tmp_path, network(rounds=2), network())
    real = autotune.measure_parity

    def full(spec, tiles, alone):
        if spec.precision == "int8":
            raise EngineUnavailableError("GPU out of memory")
        return real(spec, tiles, alone)

    monkeypatch.setattr(autotune, "measure_parity", full)
    choice, _ = choose("onnxruntime", str(model.folder))
    assert choice.precision == "fp32"
    assert "int8 refused: GPU out of memory" in choice.reason
    assert not list((tmp_path / "cache" / "trials").glob("*.json"))
    monkeypatch.undo()
    monkeypatch.setenv("COLORIZE_ARCHIVE_CACHE", str(tmp_path / "cache"))
    assert choose("onnxruntime", str(model.folder))[0].precision == "int8"


@pytest.mark.parametrize(("fp32", "int8", "wanted"), [(9.0, 0.1, "int8"), (0.0, 9.0, "fp32"), (9.0, 9.0, None)])
def test_only_what_keeps_the_picture_is_taken(tmp_path, monkeypatch, fp32, int8, wanted):
    model = model_of(tmp_path, network(), network())
    figures = {"fp32": parity_of(fp32, 0.05), "int8": parity_of(int8)}
    monkeypatch.setattr(autotune, "measure_parity", lambda spec, tiles, alone: figures[spec.precision])
    if wanted is None:
        with pytest.raises(EngineUnavailableError, match=r"colours would be others.*9\.00"):
            choose("onnxruntime", str(model.folder))
    else:
        choice, _ = choose("onnxruntime", str(model.folder))
        assert choice.precision == wanted
        assert "refused" in choice.reason


@pytest.mark.parametrize(
    ("rates", "wanted"),
    [
        ({"fp32": 10.0, "bf16": 30.0, "int8": 33.0}, "bf16"),  # int8 keeps the picture less, and gains a tenth
        ({"fp32": 10.0, "bf16": 30.0, "int8": 60.0}, "int8"),
        ({"fp32": 10.0, "bf16": 11.0, "int8": 11.4}, "fp32"),
        ({"fp32": 10.0, "bf16": 11.0, "int8": 12.0}, "int8"),
    ],
)
def test_what_keeps_the_picture_better_is_taken_unless_it_is_clearly_slower(monkeypatch, rates, wanted):
    found = [autotune.Trial(name, True, "", rate) for name, rate in rates.items()]
    monkeypatch.setattr(autotune, "trials", lambda *given: found)
    model = find_model("default")
    assert autotune.fastest_that_keeps_the_picture("openvino", "1", model, list(rates), None)[0] == wanted


def test_without_a_cache_it_is_measured_all_the_same(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COLORIZE_ARCHIVE_CACHE", str(tmp_path / "file"))
    model = model_of(tmp_path, network(rounds=2), network())
    assert choose("onnxruntime", str(model.folder))[0].precision == "int8"
    assert "COLORIZE_ARCHIVE_CACHE" in caplog.text


def test_a_model_of_one_size_is_judged_at_the_runs_tiles(tmp_path):
    whole = make_model(tmp_path / "fixed", fixed_px=64)
    model = write_int8_model(find_model(str(whole)), (whole / "model.onnx").read_bytes(), tmp_path / "both")
    choice, _ = choose("onnxruntime", str(model.folder), tile_yx=(64, 64))
    assert "refused" not in choice.reason
