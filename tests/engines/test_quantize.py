"""int8 files of models that take a palette: their third and fourth channel, and the palette network beside them."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from engines.convert.quantize import layers_in_float, quantized, write_int8_model
from engines.measure.parity import measure_parity
from engines.measure.reference_tiles import reference_tiles
from engines.scaling import fill
from engines.spec import EngineSpec, find_model
from flows.cli.engine_tiles import calibration_tiles

MODEL = find_model("default")


def test_an_int8_folder_has_the_palette_network_too(tmp_path):
    made = write_int8_model(MODEL, b"int8", tmp_path / "int8")
    assert made.onnx_for("int8").read_bytes() == b"int8"
    assert [path.read_bytes() for path in made.palette_paths()] == [path.read_bytes() for path in MODEL.palette_paths()]
    assert not (tmp_path / "int8" / MODEL.card.palette.stem).exists()


def test_ranges_of_a_model_that_takes_a_palette_are_those_of_tiles_with_one(tmp_path):
    cv2.imwrite(str(tmp_path / "scan.png"), np.random.default_rng(0).integers(0, 256, (300, 400), np.uint8))
    shipped, own = calibration_tiles(None, MODEL), calibration_tiles(tmp_path, MODEL)
    assert shipped.shape[1:] == own.shape[1:] == (3, 256, 256)
    for tiles in (shipped, own):
        assert tiles[:, :1].min() >= 0
        assert 5 < tiles[:, 1:].std() < 30
    assert calibration_tiles(None, find_model("pix2pix-unet")).shape[1] == 1


def test_what_is_quantized_sees_the_palette_in_the_networks_units():
    pytest.importorskip("nncf")
    tiles = reference_tiles((64, 64), 12, 3)
    inputs = np.empty_like(tiles)
    fill(MODEL.card, inputs, tiles)
    wide, narrow = (
        onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        for graph in (MODEL.onnx_path.read_bytes(), quantized(MODEL, tiles))
    )
    expected, made = (each.run(None, {each.get_inputs()[0].name: inputs})[0] for each in (wide, narrow))
    assert not np.array_equal(expected, made)
    assert np.corrcoef(expected.ravel(), made.ravel())[0, 1] > 0.9


def test_the_first_and_the_last_product_and_all_sums_stay_in_float():
    network = onnx.load(MODEL.onnx_path)
    in_float = set(layers_in_float(network))
    convolutions = [node.name for node in network.graph.node if node.op_type == "Conv"]
    assert set(convolutions) - in_float == set(convolutions[1:-1])
    assert {node.name for node in network.graph.node if node.op_type != "Conv"} <= in_float
    assert layers_in_float(onnx.ModelProto()) == []


@pytest.mark.parametrize("name", ["default", "free"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_shipped_int8_files_keep_the_picture(name, backend):
    folder = str(find_model(name).folder)
    parity = measure_parity(EngineSpec(backend, folder, (256, 256), 4, 2, 1, "int8"), 8, 2)
    assert parity.passes, str(parity)
    assert parity.p999 > 0.05  # it is another file, and not float32 by another name
