from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx
import onnxruntime
import torch

import training.generators
from engines.spec import find_model
from training.config import Phase, Recipe
from training.errors import TrainingError
from training.export import describe_data, export, fold_batch_norm, load_average, load_generator, round_weights
from training.loop import CHECKPOINT, build

GENERATORS = sorted(p.stem for p in Path(str(training.generators.__file__)).parent.glob("[!_]*.py"))
OPTIONS = {"unet": {"width": 8, "depth": 3}, "mobilenet_unet": {"widths": [32, 24, 16, 16]}}


def _checkpoint(folder: Path, generator: str) -> Path:
    """What a run leaves, of random weights and running statistics that are not 0 and 1."""
    torch.manual_seed(0)
    options = OPTIONS.get(generator, {})
    recipe = Recipe("tiny", generator, options, pretrained="/far/away/encoder.pth", phases=(Phase(4),))
    network = build("generator", generator, options).train()
    with torch.no_grad():
        network(torch.rand(2, 1, 64, 64))
    folder.mkdir(exist_ok=True)
    state = {"recipe": dataclasses.asdict(recipe), "step": 4, "seconds": 1.5, "average": network.state_dict()}
    torch.save(state, folder / CHECKPOINT)
    return folder


@pytest.mark.parametrize("generator", GENERATORS)
def test_onnxruntime_equals_torch_with_the_rounded_weights(generator: str, tmp_path: Path) -> None:
    run = _checkpoint(tmp_path / "run", generator)
    model = export(run, tmp_path / "model", "tiny", {})
    network = fold_batch_norm(load_average(run)[0])
    round_weights(network)
    session = onnxruntime.InferenceSession(str(model.onnx_path), providers=["CPUExecutionProvider"])
    for shape in ((1, 1, 64, 96), (5, 1, 32, 32)):
        lightness = np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(lightness)).numpy()
        (chroma,) = session.run(["chroma"], {"lightness": lightness})
        assert chroma.shape == (shape[0], 2, *shape[2:])
        np.testing.assert_allclose(chroma, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_model_folder_comes_back_as_the_same_network(generator: str, tmp_path: Path) -> None:
    run = _checkpoint(tmp_path / "run", generator)
    network = fold_batch_norm(load_average(run)[0])
    round_weights(network)
    back = load_generator(export(run, tmp_path / "model", "tiny", {}))
    lightness = torch.rand(2, 1, 64, 64) * 2 - 1
    with torch.no_grad():
        assert torch.equal(back(lightness), network(lightness))


def test_rounding_the_weights_moves_colour_little(tmp_path: Path) -> None:
    network = load_average(_checkpoint(tmp_path / "run", "unet"))[0]
    rounded = fold_batch_norm(network)
    round_weights(rounded)
    lightness = torch.rand(2, 1, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(rounded(lightness), network(lightness), rtol=0, atol=5e-3)


def test_file_is_half_size_in_one_piece_and_described(tmp_path: Path) -> None:
    model = export(_checkpoint(tmp_path / "run", "unet"), tmp_path / "model", "tiny", {"note": "a test"})
    assert sorted(path.name for path in model.folder.iterdir()) == ["card.json", "model.onnx"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "run"]
    proto = onnx.load(model.onnx_path, load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version >= 17
    large = [i for i in proto.graph.initializer if np.prod(i.dims) >= 256]
    assert large
    assert {i.data_type for i in large} == {onnx.TensorProto.FLOAT16}
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    assert [bool(dim.dim_param) for dim in dims] == [True, False, True, True]
    card = find_model(str(model.folder)).card
    assert (card.name, card.generator, card.size_multiple) == ("tiny", "unet", 8)
    assert (card.lightness_scale, card.lightness_offset, card.chroma_scale) == (0.02, -1, 110)
    assert (card.training["steps"], card.training["note"]) == (4, "a test")
    assert card.training["recipe"]["pretrained"] == "encoder.pth"


def test_replaces_a_model_but_nothing_else(tmp_path: Path) -> None:
    run = _checkpoint(tmp_path / "run", "unet")
    export(run, tmp_path / "model", "first", {})
    assert export(run, tmp_path / "model", "second", {}).card.name == "second"
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("keep me")
    with pytest.raises(TrainingError, match="no model"):
        export(run, other, "third", {})
    assert (other / "letter.txt").read_text() == "keep me"


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint"])
def test_unusable_checkpoint_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(TrainingError, match="checkpoint") as caught:
        export(tmp_path, tmp_path / "model", "x", {})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_data_description_counts_training_pictures(photographs_folder: Path) -> None:
    described = describe_data(photographs_folder)
    assert 20 < described["pictures"] < 40
    assert described["licences"] == {"unknown": described["pictures"]}
