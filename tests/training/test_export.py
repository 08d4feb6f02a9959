from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

import onnx
import onnxruntime
import torch

import training.generators
from engines.spec import find_model
from pipeline.colour.lab import lab_from_rgb
from training import checkpoint
from training.config import Recipe
from training.errors import TrainingError
from training.export import engine_graph, export, fold_batch_norm, load_average, load_generator, round_weights
from training.trainer import build_generator

GENERATORS = sorted(p.stem for p in Path(str(training.generators.__file__)).parent.glob("[!_]*.py"))
OPTIONS = {"unet": {"width": 8, "depth": 3}, "efficientnet_unet": {"widths": [32, 24, 16, 16]}}


def _run(folder: Path, generator: str, **more: object) -> Path:
    """What a run leaves, of random weights and running statistics that are not 0 and 1."""
    torch.manual_seed(0)
    if generator == "palette_unet":
        more["palette"] = {}
    recipe = Recipe(
        name="tiny", generator=generator, generator_options=OPTIONS.get(generator, {}), phases=[{"steps": 4}], **more
    )  # type: ignore[arg-type]
    network = build_generator(recipe).train()
    with torch.no_grad():
        network(torch.rand(2, recipe.given_channels, 64, 64))
    folder.mkdir(exist_ok=True)
    state = {"recipe": recipe.model_dump(mode="json"), "step": 4, "seconds": 1.5, "started_from": "random weights"}
    checkpoint.save(folder, {**state, "average": network.state_dict()})
    return folder


@pytest.mark.parametrize("generator", GENERATORS)
def test_onnxruntime_equals_torch_with_the_rounded_weights(generator: str, tmp_path: Path) -> None:
    run = _run(tmp_path / "run", generator)
    model = export(run, tmp_path / "model", "tiny")
    network = fold_batch_norm(load_average(run)[0])
    round_weights(network)
    session = onnxruntime.InferenceSession(str(model.onnx_path), providers=["CPUExecutionProvider"])
    channels = model.card.channels
    for shape in ((1, channels, 64, 96), (5, channels, 32, 32)):
        lightness = np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(lightness)).numpy()
        (chroma,) = session.run(["chroma"], {"lightness": lightness})
        assert chroma.shape == (shape[0], 2, *shape[2:])
        np.testing.assert_allclose(chroma, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_model_folder_comes_back_as_the_same_network(generator: str, tmp_path: Path) -> None:
    run = _run(tmp_path / "run", generator)
    network = fold_batch_norm(load_average(run)[0])
    round_weights(network)
    model = export(run, tmp_path / "model", "tiny")
    back = load_generator(model)
    lightness = torch.rand(2, model.card.channels, 64, 64) * 2 - 1
    with torch.no_grad():
        assert torch.equal(back(lightness), network(lightness))


def test_rounding_the_weights_moves_colour_little(tmp_path: Path) -> None:
    network = load_average(_run(tmp_path / "run", "unet"))[0]
    rounded = fold_batch_norm(network)
    round_weights(rounded)
    lightness = torch.rand(2, 1, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(rounded(lightness), network(lightness), rtol=0, atol=5e-3)


def test_file_is_half_size_in_one_piece_and_described(tmp_path: Path) -> None:
    model = export(_run(tmp_path / "run", "unet"), tmp_path / "model", "tiny", note="a test")
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
    assert card.training["started_from"] == "random weights"


def test_replaces_a_model_but_nothing_else(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", "unet")
    export(run, tmp_path / "model", "first")
    assert export(run, tmp_path / "model", "second").card.name == "second"
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("keep me")
    with pytest.raises(TrainingError, match="no model"):
        export(run, other, "third")
    assert (other / "letter.txt").read_text() == "keep me"


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint"])
def test_unusable_checkpoint_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / checkpoint.CHECKPOINT).write_bytes(content)
    with pytest.raises(TrainingError, match="checkpoint") as caught:
        export(tmp_path, tmp_path / "model", "x")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_rgb_generator_becomes_an_engine_that_gives_chroma(channels: int, tmp_path: Path) -> None:
    run = _run(tmp_path / "run", "unet", colour="rgb", input_channels=channels)
    model = export(run, tmp_path / "model", "tiny")
    generator, recipe, _ = load_average(run)
    lightness = np.random.default_rng(3).uniform(-1, 1, (2, 1, 32, 48)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(model.onnx_path), providers=["CPUExecutionProvider"])
    (chroma,) = session.run(["chroma"], {"lightness": lightness})
    network = fold_batch_norm(generator)
    round_weights(network)
    with torch.no_grad():
        rgb = network(torch.from_numpy(lightness).expand(-1, channels, -1, -1)).numpy() / 2 + 0.5
    # The plain way: the pipeline's own conversion of the picture that the network painted.
    expected = np.stack([lab_from_rgb(np.moveaxis(picture, 0, -1))[1:] for picture in rgb])
    np.testing.assert_allclose(chroma * recipe.chroma_scale, expected, rtol=0, atol=0.1)
    with torch.no_grad():
        back = load_generator(model)(torch.from_numpy(lightness)).numpy()
    np.testing.assert_allclose(back, chroma, rtol=0, atol=1e-3)


def test_a_lab_generator_of_one_channel_is_exported_as_it_is() -> None:
    recipe = Recipe(name="tiny", generator="unet", phases=[{"steps": 1}])  # type: ignore[arg-type]
    generator = build_generator(recipe)
    assert engine_graph(generator, recipe) is generator


def test_the_card_tells_the_run_and_no_folder_of_the_training_machine(tmp_path: Path) -> None:
    secret = "/home/somebody/encoder.pth"
    run = _run(tmp_path / "run", "unet", pretrained=secret, data="/home/somebody/photographs")
    told = {
        "seed": 0,
        "data": {"sha256": "ab", "pictures": 32},
        "device": "cpu",
        "processes": 1,
        "packages": {},
        "command": f"train --data {secret}",
    }
    (run / "run.json").write_text(json.dumps(told))
    (run / "losses.jsonl").write_text('{"step": 4}\n')
    model = export(run, tmp_path / "model", "tiny")
    assert "somebody" not in (model.folder / "card.json").read_text()
    assert model.card.training["data"]["sha256"] == "ab"
    assert model.card.training["epochs"] == 2  # four batches of 16, of 32 pictures
    assert (model.folder / "losses.jsonl").read_text() == '{"step": 4}\n'
