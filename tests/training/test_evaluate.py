from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("skimage")
pytest.importorskip("yaml")

from engines.spec import CARD_FILE, MODEL_FILE, Model, ModelCard, file_sha256, find_model
from pipeline.colour.colourfulness import colourfulness
from pipeline.colour.lab import lightness_from_samples, rgb_from_lab
from training.data import open_collection
from training.errors import DataError
from training.evaluation import Row, evaluate
from training.evaluation.colorizers import OnnxColorizer, mean_chroma, tile_ms
from training.evaluation.evaluate import resized
from training.evaluation.measure import Truth
from training.evaluation.sheet import Shown, combined_sheet, sheet
from training.evaluation.subjects import find_subjects, one_a_photograph
from training.evaluation.table import Origin
from training.metrics import ciede2000, mse, psnr, ssim

if TYPE_CHECKING:
    from training.evaluation.stlpips import Features


def linear_model(
    folder: Path, name: str = "linear", size_multiple: int = 16, training: dict[str, Any] | None = None
) -> Model:
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
    sha256 = file_sha256(folder / MODEL_FILE)
    card = ModelCard(name, "linear", 0.01, 0.0, 100.0, size_multiple, sha256, training=training or {})
    (folder / CARD_FILE).write_text(card.to_json())
    return find_model(str(folder))


def quietly(models: list[Model], data: Path, out: Path | None = None, **options: Any) -> list[Row]:
    return evaluate(models, data, out, short_side_px=32, report=lambda _: None, **options)


@pytest.fixture(autouse=True)
def no_weights_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("torch") is not None:
        monkeypatch.setattr("training.evaluation.stlpips._installed", lambda: None)


@pytest.mark.parametrize("shape", [(16, 32), (17, 31), (40, 9)])
def test_whole_picture_is_coloured_whatever_its_sides(tmp_path: Path, shape: tuple[int, int]) -> None:
    lightness = np.random.default_rng(0).uniform(0, 100, shape).astype(np.float32)
    chroma = OnnxColorizer(linear_model(tmp_path / "m"))(lightness)
    np.testing.assert_allclose(chroma, [lightness, -lightness], rtol=1e-5, atol=1e-4)


def test_measures_are_those_of_the_plain_functions() -> None:
    rng = np.random.default_rng(0)
    truth = cv2.resize(rng.random((6, 8, 3)), (64, 48), interpolation=cv2.INTER_CUBIC).clip(0, 1).astype(np.float32)
    result = (truth + rng.normal(0, 0.05, truth.shape)).clip(0, 1).astype(np.float32)
    measures = Truth(truth).measure(result)
    plain = [metric(result, truth) for metric in (ciede2000, mse, psnr, ssim)]
    assert [measures.ciede2000, measures.mse, measures.psnr_db, measures.ssim] == pytest.approx(plain, rel=1e-5)
    assert measures.colourfulness == colourfulness(result)
    assert np.isnan(measures.stlpips)
    equal = Truth(truth).measure(truth)
    assert (equal.ciede2000, equal.mse, equal.psnr_db) == (0, 0, 100)
    assert equal.ssim == pytest.approx(1)


def test_table_has_baselines_and_files(photographs_folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    models = [linear_model(tmp_path / "a"), linear_model(tmp_path / "b")]
    out = tmp_path / "out"
    rows = evaluate(models, photographs_folder, out, short_side_px=32, report=said.append)
    assert [row.name.split(" (")[0] for row in rows] == ["gray", "mean tint", "linear", "linear"]
    assert len({row.name for row in rows}) == 4
    gray, tint, model, again = rows
    assert gray.below_gray_percent.mean == gray.below_gray_percent.low == 0
    assert gray.colourfulness.mean == pytest.approx(0, abs=0.01)
    assert tint.colourfulness.mean > gray.colourfulness.mean
    assert gray.tile_ms is None
    assert model.tile_ms is not None
    assert model.tile_ms > 0
    for figure in (gray.ciede2000, model.mse, model.ssim, model.psnr_db, model.colourfulness, tint.below_gray_percent):
        assert figure.low < figure.mean < figure.high
    assert model.ciede2000 == again.ciede2000
    assert model.ciede2000.mean > gray.ciede2000.mean  # nobody's photographs are all magenta-blue
    ratio = model.colourfulness.mean / model.colourfulness_of_truth.mean
    assert model.colourfulness_ratio.mean == pytest.approx(ratio)
    assert {row.pictures for row in rows} == {len(open_collection(photographs_folder).test)}

    printed = next(text for text in said if "CIEDE2000" in text)
    assert "| gray (a*=b*=0) |" in printed
    assert "holds out" in printed
    assert sum("(100 %)" in text for text in said) == 1
    assert (out / "table.md").read_text() == printed + "\n"
    record = json.loads((out / "table.json").read_text())
    assert record["data_sha256"] == open_collection(photographs_folder).sha256
    assert [row["mse_low"] for row in record["rows"]] == [row.mse.low for row in rows]
    with (out / "table.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["name"] for line in lines] == [row.name for row in rows]
    assert {f"{key}{end}" for key in ("ciede2000", "stlpips", "ssim") for end in ("", "_low", "_high")} <= lines[
        0
    ].keys()
    names = {
        "table.md",
        "table.csv",
        "table.json",
        "groups.md",
        "sheet.jpg",
        "sheet_linear.png",
        "sheet_linear (2).png",
        "quiz.html",
    }
    assert {path.name for path in out.iterdir()} == names
    assert cv2.imread(str(out / "sheet_linear.png")).shape[0] > 144


def test_reported_figures_and_length_of_training_stand_beside_ours(photographs_folder: Path, tmp_path: Path) -> None:
    recipe = {"reported": {"mse": 0.0123, "ssim": 0.8503}, "source": "A paper, table 1"}
    training = {"recipe": recipe, "steps": 1234, "seconds": 600, "epochs": 2.5, "data": {"pictures": 17}}
    models = [linear_model(tmp_path / "told", "told", training=training), linear_model(tmp_path / "untold", "untold")]
    said: list[str] = []
    told, untold = evaluate(models, photographs_folder, short_side_px=32, limit=3, report=said.append)[2:]
    assert told.origin == Origin(0.0123, 0.8503, "A paper, table 1", 1234, 600, 2.5, 17)
    assert untold.origin == Origin()
    assert untold.trained == ""
    assert "| MSE reported |" in said[-1]
    assert "| 0.0123 |" in said[-1]
    assert "| 0.8503 |" in said[-1]
    assert "2.5 epochs, 1,234 steps, 10 min" in said[-1]
    assert "A paper, table 1" in said[-1]
    assert told.flat()["reported_ssim"] == 0.8503
    evaluate(models[1:], photographs_folder, short_side_px=32, limit=3, report=said.append)
    assert "reported" not in said[-1]


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ([{"crop_px": 128}], "288 steps, 128 px |"),
        ([{"crop_px": [128, 128]}, {"crop_px": [256, 512]}, {"crop_px": 128}], "288 steps, 128 and 256 x 512 px |"),
        ([{"crop_px": 128}, {"steps": 600}], "288 steps, 128 and 256 px |"),  # export leaves out a recipe's defaults
        (None, "288 steps |"),
    ],
)
def test_crops_stand_beside_the_length_of_training(
    photographs_folder: Path, tmp_path: Path, phases: list[dict[str, Any]] | None, words: str
) -> None:
    model = linear_model(tmp_path / "m", training={"recipe": {"phases": phases}, "steps": 288})
    said: list[str] = []
    evaluate([model], photographs_folder, short_side_px=32, limit=3, report=said.append)
    assert words in said[-1]


_UNCHECKED = "linear learned from another collection (or says nothing of its data)"
_SEEN = "linear learned from four fifths of these very pictures"


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("data", ["same", "other", None])
def test_what_a_model_may_have_seen_is_said(
    photographs_folder: Path, tmp_path: Path, data: str | None, everything: bool
) -> None:
    sha256 = open_collection(photographs_folder).sha256 if data == "same" else data
    model = linear_model(tmp_path / "m", training={"data": {"sha256": sha256}} if data else {})
    said: list[str] = []
    evaluate([model], photographs_folder, short_side_px=32, limit=2, everything=everything, report=said.append)
    assert (_UNCHECKED in said[-1]) == (data != "same")
    assert (_SEEN in said[-1]) == (data == "same" and everything)


def test_models_of_other_pictures_share_a_note(photographs_folder: Path, tmp_path: Path) -> None:
    models = [linear_model(tmp_path / "a", "one"), linear_model(tmp_path / "b", "two", training={"data": None})]
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "1.png").write_bytes((photographs_folder / "00.png").read_bytes())
    said: list[str] = []
    evaluate(models, tmp_path / "single", short_side_px=32, everything=True, report=said.append)
    assert said[-1].count("learned from") == 1
    assert "- one, two learned from another collection (or say nothing of their data): " in said[-1]


def test_a_table_inside_the_data_folder_is_not_measured(photographs_folder: Path, tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes((photographs_folder / f"{i:02}.png").read_bytes())
    model = linear_model(tmp_path / "models" / "m")
    rows = [quietly([model], tmp_path, tmp_path / "out", everything=True)[0] for _ in range(2)]
    assert list((tmp_path / "out").glob("*.png"))
    assert [row.pictures for row in rows] == [12, 12]


def test_all_takes_every_picture_and_limit_fewer(photographs_folder: Path) -> None:
    assert quietly([], photographs_folder, everything=True)[0].pictures == 40
    assert quietly([], photographs_folder, everything=True, limit=7)[0].pictures == 7


def test_a_single_picture_is_enough_for_all(photographs_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes((photographs_folder / "00.png").read_bytes())
    assert quietly([], tmp_path, everything=True)[0].pictures == 1


def test_a_collection_with_halves_of_its_own_is_measured_on_its_own(photographs_folder: Path, tmp_path: Path) -> None:
    for i in range(12):
        folder = tmp_path / ("val2017" if i < 4 else "train2017")
        folder.mkdir(exist_ok=True)
        (folder / f"{i}.png").write_bytes((photographs_folder / f"{i:02}.png").read_bytes())
    subjects = find_subjects(tmp_path, everything=False)
    assert [s.name for s in subjects.measured] == [f"val2017/{i}.png" for i in range(4)]
    assert len(subjects.learnt) == 8
    assert quietly([], tmp_path)[0].pictures == 4


def test_numpy_layout_is_measured_in_its_true_colours(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgb = [cv2.resize(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8), (64, 64)) for _ in range(30)]
    lab = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2Lab) for picture in rgb])
    np.save(tmp_path / "gray_scale.npy", lab[..., 0])
    np.save(tmp_path / "ab1.npy", lab[..., 1:])
    subjects = find_subjects(tmp_path, everything=False)
    assert 0 < len(subjects.measured) < 30
    for subject in subjects.measured:
        index = int(subject.name.partition("[")[2].rstrip("]"))
        back = subject.read()
        assert back is not None
        assert np.abs(back.astype(int) - rgb[index]).mean() < 3  # 8-bit Lab is coarse
    assert len(find_subjects(tmp_path, everything=True).measured) == 30


def test_gray_pictures_alone_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((40, 40, 3), 90, np.uint8))
    for everything in (False, True):
        with pytest.raises(DataError, match="colour photograph"):
            evaluate([], tmp_path, everything=everything)


def test_mean_chroma_is_that_of_the_pictures(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "red.png"), np.full((40, 40, 3), (0, 0, 255), np.uint8))
    found = find_subjects(tmp_path, everything=True).measured
    assert mean_chroma(found) == pytest.approx((80.1, 67.2), abs=0.1)  # sRGB red in CIELAB


def test_one_picture_a_photograph_reaches_the_quiz(photographs_folder: Path, tmp_path: Path) -> None:
    lines = ["file\tsource\tlicence\tgroup\tnote\tbytes\tsha256"]
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes((photographs_folder / f"{i:02}.png").read_bytes())
        lines.append(f"{i}.png\t\t\tgroup{i // 2}\t\t\t")
    (tmp_path / "MANIFEST.tsv").write_text("\n".join(lines) + "\n")
    found = find_subjects(tmp_path, everything=True).measured
    assert [subject.name for subject in one_a_photograph(found)] == ["0.png", "2.png", "4.png", "6.png"]


def test_tile_time_is_of_one_tile_after_warm_up(tmp_path: Path) -> None:
    model = OnnxColorizer(linear_model(tmp_path / "m"))
    asked = []

    class Counted:
        has_palette = False

        def __call__(self, lightness: np.ndarray, seen: object) -> np.ndarray:
            asked.append(lightness.shape)
            return model(lightness, seen)

    assert tile_ms(Counted()) > 0
    assert asked == [(256, 256)] * 11


@pytest.mark.e2e
def test_evaluation_without_stlpips_does_not_import_torch() -> None:
    code = "import sys, training.evaluation.measure, training.evaluation.table, training.evaluation.colorizers as c; "
    blocked = "import sys; sys.modules['torch'] = None; "
    check = "from training.evaluation.evaluate import _load_stlpips; print(_load_stlpips(None)[1])"
    done = subprocess.run([sys.executable, "-c", blocked + code + check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch is not installed" in done.stdout


def test_pictures_can_be_measured_at_their_own_size(photographs_folder: Path, tmp_path: Path) -> None:
    gray, *_ = evaluate([], photographs_folder, short_side_px=None, report=lambda _: None)
    test = open_collection(photographs_folder).test
    errors = []
    for index in range(len(test)):
        truth = test.read(index).pixels
        lightness = lightness_from_samples(truth)
        plain = rgb_from_lab(lightness, np.zeros((2, *lightness.shape), np.float32))
        errors.append(ciede2000(plain, truth.astype(np.float32) / 255))
    assert gray.ciede2000.mean == pytest.approx(np.mean(errors), rel=1e-4)


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


def test_combined_sheet_has_a_column_a_model_under_its_name() -> None:
    def flat(level: int, width: int) -> np.ndarray:
        return np.full((144, width, 3), level, np.uint8)

    pictures = [Shown(flat(10, w), flat(90, w), {"one": flat(30, w), "naïve": flat(60, w)}) for w in (144, 600)]
    pixels = combined_sheet(pictures)
    step = (pixels.shape[1] - 4) // 4
    assert [int(pixels[22 + 4 + 72, 4 + step * i + 100, 0]) for i in range(4)] == [10, 30, 60, 90]
    assert all((pixels[:22, step * i : step * (i + 1)] < 100).any() for i in range(4))


def structured(shape_yx: tuple[int, int] = (96, 112)) -> np.ndarray:
    """A smooth colour picture with some edges, (H, W, 3) in [0, 1], made by formula: the same everywhere."""
    y, x = np.mgrid[: shape_yx[0], : shape_yx[1]].astype(np.float64)
    waves = [0.5 + 0.5 * np.sin(x / 9 + y / (7 + 4 * i) + i) * np.cos(y / 15 - i) for i in range(3)]
    picture = np.stack(waves, axis=-1)
    picture[20:50, 30:70] = (0.8, 0.25, 0.2)
    return picture.astype(np.float32)


def toward_gray(rgb: np.ndarray, share: float) -> np.ndarray:
    return ((1 - share) * rgb + share * rgb.mean(axis=-1, keepdims=True)).astype(np.float32)


class TestStLpipsFormula:
    """The maths against the papers' formulas, layer by layer, with random weights: these tests need no package."""

    @pytest.fixture
    def weights(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        torch = pytest.importorskip("torch")
        from training.evaluation import stlpips

        generator = torch.Generator().manual_seed(0)
        shapes = [(64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3)]
        state = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
        for i, (name, shape) in enumerate(zip(stlpips._PUBLISHED, shapes, strict=True)):
            scale = (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
            state[f"{name}.weight"] = scale * torch.randn(shape, generator=generator)
            state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
            state[f"lin{i}.model.1.weight"] = torch.rand((1, shape[0], 1, 1), generator=generator)
        torch.save(state, tmp_path / stlpips.FILE)
        monkeypatch.setattr(stlpips, "SHA256", file_sha256(tmp_path / stlpips.FILE))
        return tmp_path

    @staticmethod
    def by_formula(path: Path, one: np.ndarray, other: np.ndarray) -> float:
        """Sum over the layers of the mean of head * (unit vector - unit vector)^2, in double precision."""
        import torch
        from torch.nn.functional import conv2d, max_pool2d

        from training.evaluation.stlpips import _PUBLISHED

        def halved(x: np.ndarray) -> np.ndarray:
            """Zhang 2019: a binomial blur, then each second pixel."""
            x = np.pad(x, [(0, 0), (0, 0), (2, 2), (2, 2)], mode="reflect")
            x = x[..., :-2] / 4 + x[..., 1:-1] / 2 + x[..., 2:] / 4
            x = x[..., :-2, :] / 4 + x[..., 1:-1, :] / 2 + x[..., 2:, :] / 4
            return x[..., ::2, ::2]

        state = torch.load(path, weights_only=True)
        shift, scale = np.array([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]])[..., None, None]
        x = (np.moveaxis(np.stack([one, other]).astype(np.float64), -1, 1) * 2 - 1 - shift) / scale
        total = 0.0
        for layer, (name, padding) in enumerate(zip(_PUBLISHED, (2, 2, 1, 1, 1), strict=True)):
            if layer in (1, 2):
                x = halved(max_pool2d(torch.tensor(x), 3, stride=1).numpy())
            weight, bias = (state[f"{name}.{part}"].double() for part in ("weight", "bias"))
            x = conv2d(torch.tensor(x), weight, bias, padding=padding).numpy()
            x = np.maximum(halved(x) if layer == 0 else x, 0)
            unit = x / (np.sqrt((x**2).sum(1, keepdims=True)) + 1e-10)
            head = state[f"lin{layer}.model.1.weight"].numpy()[0]
            total += float((head * (unit[0] - unit[1]) ** 2).sum(0).mean())
        return total

    def test_distance_is_the_formula(self, weights: Path) -> None:
        from training.evaluation.stlpips import FILE, load_stlpips

        truth = structured((61, 74))
        noise = np.random.default_rng(0).normal(0, 1, truth.shape)
        little, much = (np.clip(truth + s * noise, 0, 1).astype(np.float32) for s in (0.02, 0.2))
        stlpips = load_stlpips(weights)
        f_truth, f_little, f_much = map(stlpips.features, (truth, little, much))
        assert f_much.distance(f_truth) == pytest.approx(self.by_formula(weights / FILE, much, truth), rel=1e-4)
        assert f_truth.distance(f_truth) == 0
        assert f_truth.distance(f_much) == f_much.distance(f_truth)
        assert 0 < f_little.distance(f_truth) < f_much.distance(f_truth)
        assert f_truth.pooled.shape == (256,)

    def test_smallest_picture(self, weights: Path) -> None:
        from training.evaluation.stlpips import LEAST_SIDE_PX, load_stlpips

        stlpips = load_stlpips(weights / "alex_shift_tolerant.pth")
        picture = structured()[:LEAST_SIDE_PX, :LEAST_SIDE_PX]
        assert stlpips.features(picture).distance(stlpips.features(1 - picture)) > 0

    def test_columns_are_filled_where_the_weights_are(
        self, weights: Path, photographs_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said: list[str] = []
        options = {"everything": True, "short_side_px": 24, "stlpips_weights": weights, "report": said.append}
        monkeypatch.setattr("training.evaluation.frechet.LEAST_PICTURES", 12)
        gray, tint = evaluate([], photographs_folder, limit=12, **options)
        for row in (gray, tint):
            assert row.stlpips is not None
            assert row.stlpips.mean > 0
            assert row.frechet is not None
            assert row.frechet > 0
            assert f"{row.stlpips.mean:.3f} [" in said[-1]
            assert f"| {row.frechet:.3f} |" in said[-1]
        assert gray.frechet != tint.frechet
        assert "no FID" in said[-1]
        assert "ST-LPIPS:" not in said[-1]
        evaluate([], photographs_folder, limit=3, **options)
        assert "| Fréchet |" not in said[-1]
        assert "no Fréchet distance: it takes 100 unlike pictures, and these are 3" in said[-1]

    def test_missing_weights_leave_a_note(self, photographs_folder: Path) -> None:
        pytest.importorskip("torch")
        said: list[str] = []
        gray = evaluate([], photographs_folder, limit=2, short_side_px=32, report=said.append)[0]
        assert gray.stlpips is None
        assert gray.frechet is None
        assert "| ST-LPIPS [95 %] |" in said[-1]
        assert "Fréchet" not in said[-1]
        assert "pip install --no-deps stlpips-pytorch==0.0.2" in said[-1]

    def test_missing_weights_that_were_asked_for_are_an_error(self, photographs_folder: Path, tmp_path: Path) -> None:
        pytest.importorskip("torch")
        with pytest.raises(DataError, match=r"no .*alex_shift_tolerant.pth, "):
            quietly([], photographs_folder, stlpips_weights=tmp_path)

    def test_other_weights_are_refused(self, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from training.evaluation import stlpips

        path = weights / stlpips.FILE
        path.write_bytes(path.read_bytes() + b"0")
        with pytest.raises(DataError, match="the figure would not be ST-LPIPS"):
            stlpips.load_stlpips(weights)
        path.write_bytes(b"weights cut off on their way")
        monkeypatch.setattr(stlpips, "SHA256", file_sha256(path))
        with pytest.raises(DataError, match="cannot be read"):
            stlpips.load_stlpips(weights)


@pytest.fixture(scope="module")
def features() -> Callable[[np.ndarray], Features]:
    """Of the published weights where they are installed; of wider scope, so made before they are hidden."""
    pytest.importorskip("torch")
    from training.evaluation import stlpips

    if stlpips._installed() is None:
        pytest.skip("ST-LPIPS's weights are not installed: pip install --no-deps stlpips-pytorch==0.0.2")
    return stlpips.load_stlpips().features


class TestStLpipsAsPublished:
    """What the metric is for, with its own weights."""

    def test_distances_are_those_of_the_published_package(self, features: Callable[[np.ndarray], Features]) -> None:
        truth = structured()
        found = [features(other).distance(features(truth)) for other in (toward_gray(truth, 1), truth[::-1])]
        assert found == pytest.approx([0.69085, 0.38648], abs=1e-4)

    def test_distance_rises_with_what_people_see(self, features: Callable[[np.ndarray], Features]) -> None:
        truth = structured()
        blurred = [cv2.GaussianBlur(truth, (0, 0), sigma) for sigma in (0.7, 1.5, 3, 6)]
        faded = [toward_gray(truth, share) for share in (0.25, 0.5, 0.75, 1)]
        tinted = [np.clip(truth + step * np.array([1, 0, -1], np.float32), 0, 1) for step in (0.05, 0.1, 0.2, 0.4)]
        for kind in (blurred, faded, tinted):
            distances = [features(other).distance(features(truth)) for other in (truth, *kind)]
            assert distances[0] == 0
            assert distances == sorted(distances)
            assert distances[-1] > 0.05

    def test_a_shift_by_a_pixel_is_nearly_nothing(self, features: Callable[[np.ndarray], Features]) -> None:
        wide = structured((96, 113))
        truth, shifted = wide[:, :-1], wide[:, 1:]
        blurred = cv2.GaussianBlur(truth, (0, 0), 1.5)
        assert mse(shifted, truth) > mse(blurred, truth)
        assert features(shifted).distance(features(truth)) < features(blurred).distance(features(truth)) / 5
