from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("skimage")
pytest.importorskip("yaml")

from engines.spec import CARD_FILE, MODEL_FILE, Model, ModelCard, file_sha256, find_model
from training.data import find_photographs, is_test
from training.errors import DataError
from training.evaluate import OnnxColorizer, evaluate, resized, sheet


def linear_model(folder: Path, name: str = "linear", size_multiple: int = 16) -> Model:
    """A model folder whose network gives a* = L*, b* = -L*: each pixel for itself, so padding and cropping show."""
    folder.mkdir(parents=True)
    weight = np.array([1, -1], np.float32).reshape(2, 1, 1, 1)
    shape = ["n", 1, "h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["lightness", "weight"], ["chroma"])],
        "linear",
        [helper.make_tensor_value_info("lightness", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("chroma", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [numpy_helper.from_array(weight, "weight")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, folder / MODEL_FILE)
    card = ModelCard(name, "linear", 0.01, 0.0, 100.0, size_multiple, file_sha256(folder / MODEL_FILE))
    (folder / CARD_FILE).write_text(card.to_json())
    return find_model(str(folder))


@pytest.mark.parametrize("shape", [(16, 32), (17, 31), (40, 9)])
def test_whole_picture_is_coloured_whatever_its_sides(tmp_path: Path, shape: tuple[int, int]) -> None:
    lightness = np.random.default_rng(0).uniform(0, 100, shape).astype(np.float32)
    chroma = OnnxColorizer(linear_model(tmp_path / "m"))(lightness)
    np.testing.assert_allclose(chroma, [lightness, -lightness], rtol=1e-5, atol=1e-4)


def test_table_has_baselines_and_files(photographs_folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    models = [linear_model(tmp_path / "a"), linear_model(tmp_path / "b")]
    rows = evaluate(models, photographs_folder, tmp_path / "out", short_side_px=32, report=said.append)
    assert [row.name.split(" (")[0] for row in rows] == ["gray", "mean tint", "linear", "linear"]
    assert len({row.name for row in rows}) == 4
    gray, tint, model, again = rows
    assert gray.below_gray_percent == 0
    assert gray.colourfulness == pytest.approx(0, abs=0.01)
    assert tint.colourfulness > gray.colourfulness
    assert gray.ciede2000_low <= gray.ciede2000 <= gray.ciede2000_high
    assert model.ciede2000 == again.ciede2000 > gray.ciede2000  # nobody's photographs are all magenta-blue
    held_out = [p for p in find_photographs(photographs_folder) if is_test(p) and p.path.name != "gray.png"]
    assert {row.pictures for row in rows} == {len(held_out)}

    printed = said[-1]
    assert printed.startswith("| | CIEDE2000") or printed.startswith("|  | CIEDE2000")
    assert "| gray (a*=b*=0) |" in printed
    out = tmp_path / "out"
    assert (out / "table.md").read_text() == printed + "\n"
    assert len(json.loads((out / "table.json").read_text())) == 4
    with (out / "table.csv").open(newline="") as stream:
        assert [line["name"] for line in csv.DictReader(stream)] == [row.name for row in rows]
    assert sorted(path.name for path in out.glob("*.png")) == ["sheet_linear (2).png", "sheet_linear.png"]
    assert cv2.imread(str(out / "sheet_linear.png")).shape[0] > 144


def test_all_takes_every_picture_and_limit_fewer(photographs_folder: Path) -> None:
    def pictures(**options: object) -> int:
        rows = evaluate([], photographs_folder, short_side_px=32, report=lambda _: None, **options)  # type: ignore[arg-type]
        return rows[0].pictures

    assert pictures(everything=True) == 40
    assert pictures(everything=True, limit=7) == 7


def test_gray_pictures_alone_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((40, 40, 3), 90, np.uint8))
    with pytest.raises(DataError, match="colour photograph"):
        evaluate([], tmp_path, everything=True)


def test_resized_keeps_the_shape() -> None:
    assert resized(np.zeros((100, 250, 3), np.uint8), 40).shape == (40, 100, 3)
    assert resized(np.zeros((300, 200, 3), np.uint8), 256).shape == (384, 256, 3)


def test_sheet_is_even_with_pictures_of_any_shape() -> None:
    rows = [[np.zeros((10, 20, 3)), np.ones((5, 5, 3), np.float32)], [np.full((30, 10, 3), 7, np.uint8)]]
    pixels = sheet(rows, height_px=20, gap_px=2)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (2 * 22 + 2, 42 + 22 + 2, 3)
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert tuple(pixels[10, 10]) == (0, 0, 0)
    assert tuple(pixels[30, 4]) == (7, 7, 7)
