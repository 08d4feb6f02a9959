"""Every backend against the same tiny network computed by hand, and the ways of choosing one."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from engines.backends import openvino as openvino_backend
from engines.errors import EngineUnavailableError, ModelError
from engines.measure.reference_tiles import reference_tiles
from engines.registry import backend_names, check_tile, model_for, open_engine, processor_of
from engines.select import choose
from engines.spec import EngineSpec, find_model, shipped_models
from tests.backends import NETWORKS
from tests.models import KERNELS, make_model
from tests.patience import PATIENCE_SECONDS


@pytest.fixture
def model_folder(tmp_path):
    return make_model(tmp_path / "tiny")


def spec_for(folder, backend, batch=3, tile=(32, 64)):
    return EngineSpec(backend, str(folder), tile, batch)


def tiles(count, tile=(32, 64), seed=0):
    return np.random.default_rng(seed).uniform(0, 100, (count, 1, *tile)).astype(np.float32)


def plain_prediction(lightness):
    """The tiny network's card and convolution, tile by tile with OpenCV."""
    result = []
    for tile in lightness[:, 0] * 0.02 - 1:
        padded = cv2.copyMakeBorder(tile, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        planes = [cv2.filter2D(padded, -1, kernel)[1:-1, 1:-1] for kernel in KERNELS]
        result.append(np.tanh(np.stack(planes)) * 110)
    return np.stack(result)


@pytest.mark.parametrize("backend", NETWORKS)
@pytest.mark.parametrize("count", [1, 3])
def test_predicts_what_the_network_says(model_folder, backend, count):
    with open_engine(spec_for(model_folder, backend)) as engine:
        chroma = engine.predict(tiles(count))
    assert chroma.dtype == np.float32
    np.testing.assert_allclose(chroma, plain_prediction(tiles(count)), atol=0.05)


@pytest.mark.parametrize("backend", NETWORKS)
def test_a_tile_alone_equals_the_tile_in_a_batch(model_folder, backend):
    with open_engine(spec_for(model_folder, backend)) as engine:
        together = engine.predict(tiles(3))
        alone = np.concatenate([engine.predict(tiles(3)[i : i + 1]) for i in range(3)])
    assert together.tobytes() == alone.tobytes()


@pytest.mark.parametrize("backend", NETWORKS)
def test_threads_may_share_an_engine(model_folder, backend):
    from concurrent.futures import ThreadPoolExecutor

    batches = [tiles(3, seed=seed) for seed in range(16)]
    with open_engine(spec_for(model_folder, backend)) as engine, ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(engine.predict, batches))
        for chroma, batch in zip(shared, batches, strict=True):
            np.testing.assert_array_equal(chroma, engine.predict(batch))


def test_auto_names_the_fastest_and_says_why():
    choice, _ = choose()
    assert choice.backend == "openvino"
    assert choice.version in str(choice)
    assert "fastest" in str(choice)


def test_auto_falls_back_where_openvino_is_missing(monkeypatch):
    def missing():
        raise ImportError("No module named 'openvino'")

    monkeypatch.setattr(openvino_backend, "version", missing)
    choice, _ = choose()
    assert choice.backend == "onnxruntime"
    assert "runs everywhere" in choice.reason
    with pytest.raises(EngineUnavailableError, match="pip install openvino"):
        choose("openvino")


def test_an_unknown_engine_names_the_known():
    with pytest.raises(EngineUnavailableError, match=r"'warp'.*auto or one of .*openvino"):
        choose("warp")


def test_identity_needs_no_model_and_takes_any_tile():
    assert model_for("identity", "nonsense").card.name == "identity"
    with open_engine(EngineSpec("identity", "", (7, 13), 2)) as engine:
        some = np.rint(tiles(2, (7, 13)))
        np.testing.assert_array_equal(engine.predict(some), np.concatenate([some, some], axis=1))


def test_a_tile_that_the_model_cannot_take_names_the_nearest(model_folder):
    with pytest.raises(ModelError, match=r"100x260.*multiples of 8.*--tile 96x256|--tile 104x264"):
        check_tile(find_model(str(model_folder)), (100, 260))


def test_shipped_models_are_whole_and_small():
    assert {"default", "efficientnet-unet", "pix2pix-unet"} <= set(shipped_models())
    files = {path for name in shipped_models() for path in _files_of(find_model(name))}
    assert sum(path.stat().st_size for path in files) < 100e6
    for name in shipped_models():
        training = find_model(name).card.training
        parts = [training["generator"]["data"], training["palette"]] if "palette" in training else [training["data"]]
        for part in parts:
            assert part["licences"]
            assert part["sources"]


def _files_of(model):
    return [model.onnx_path, *(model.palette_paths() if model.card.palette else ())]


@pytest.mark.parametrize("backend", NETWORKS)
def test_the_shipped_default_colours(backend):
    spec = EngineSpec(backend, str(find_model("default").folder), (256, 256), 1)
    ramp = np.add.outer(np.linspace(20, 60, 256), np.linspace(0, 30, 256)).astype(np.float32)
    given = np.stack([ramp, np.full_like(ramp, 20), np.full_like(ramp, -15)])
    with open_engine(spec) as engine:
        chroma = engine.predict(given[None])
    assert chroma.shape == (1, 2, 256, 256)
    # A palette of one colour over a ramp without edges: that colour.
    np.testing.assert_allclose(chroma[0].mean(axis=(1, 2)), [20, -15], atol=6)


def test_both_runtimes_agree_on_the_shipped_default():
    folder = str(find_model("default").folder)
    some = reference_tiles((256, 256), 2, 3)
    results = []
    for backend in ("openvino", "onnxruntime"):
        with open_engine(EngineSpec(backend, folder, (256, 256), 2)) as engine:
            results.append(engine.predict(some))
    assert np.abs(results[0] - results[1]).max() < 0.1


def test_a_damaged_model_is_refused(model_folder):
    with (model_folder / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(ModelError, match="changed or damaged"):
        find_model(str(model_folder))


def test_a_card_with_unknown_keys_is_refused(model_folder):
    card = json.loads((model_folder / "card.json").read_text())
    (model_folder / "card.json").write_text(json.dumps({**card, "colour": "red"}))
    with pytest.raises(ModelError, match="not a model card"):
        find_model(str(model_folder))


def test_a_missing_model_names_the_shipped():
    with pytest.raises(ModelError, match=r"'nowhere'.*default"):
        find_model("nowhere")


_FIRST_AT_ONCE = """
import sys, threading
import numpy as np
from engines.registry import open_engine
from engines.spec import EngineSpec
sys.setswitchinterval(1e-6)
engine = open_engine(EngineSpec(sys.argv[1], sys.argv[2], (64, 64), 2, 1, 8))
barrier, tiles = threading.Barrier(8), np.full((2, 1, 64, 64), 50, np.float32)
def predict():
    barrier.wait()
    engine.predict(tiles)
threads = [threading.Thread(target=predict) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@pytest.mark.e2e
@pytest.mark.parametrize("backend", NETWORKS)
def test_threads_that_predict_first_at_the_same_time_do_not_block_each_other(model_folder, backend):
    """OpenVINO's binding did in every second process: a worker stood still until it was killed."""
    for _ in range(4):
        subprocess.run(
            [sys.executable, "-c", _FIRST_AT_ONCE, backend, str(model_folder)], check=True, timeout=PATIENCE_SECONDS
        )


def test_runs_share_the_limit_of_the_processor_that_their_engine_computes_on():
    on_gpu = {name for name in backend_names() if processor_of(name) == "gpu"}
    assert on_gpu == {"tensorrt", "tensorrt_rtx", "onnxruntime_tensorrt", "onnxruntime_cuda"}
