from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("yaml")

from training.config import Phase, Recipe, load_recipe, shipped_recipes
from training.errors import RecipeError, TrainingError

SYSTEMS = {
    "dilated-gan",
    "mobilenet-fusion",
    "organic-3a-residual",
    "organic-3b-unet",
    "organic-3c-resnet",
    "organic-3d-pretrained",
    "unet-cgan",
    "pix2pix-2048x4096",
}


def _recipe(*phases: Phase, **more: object) -> Recipe:
    return Recipe(name="tiny", generator="unet", phases=phases, **more)  # type: ignore[arg-type]


def test_every_system_of_the_reports_is_shipped() -> None:
    assert set(shipped_recipes()) >= SYSTEMS


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipe_loads_and_comes_back_from_json(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe.schedule(1000).total_steps > 0
    assert Recipe(**recipe.model_dump(mode="json")) == recipe


def test_reports_figures_are_what_the_reports_say() -> None:
    reported = {name: load_recipe(name).reported for name in SYSTEMS if load_recipe(name).reported}
    assert {name: (figures["mse"], figures["ssim"]) for name, figures in reported.items()} == {
        "organic-3a-residual": (0.0071, 0.91),
        "organic-3b-unet": (0.0123, 0.8503),
        "organic-3c-resnet": (0.0089, 0.8414),
        "organic-3d-pretrained": (0.0085, 0.8899),
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name: x\ngenerator: unet\nlearning_rat: 1.0\nphases: [{steps: 1}]", ["learning_rat", "'learning_rate'"]),
        ("name: x\ngenerator: unet\nwxyz: 1.0\nphases: [{steps: 1}]", ["wxyz", "known keys", "learning_rate"]),
        ("name: x\ngenerator: unet\nlearning_rate: fast\nphases: [{steps: 1}]", ["learning_rate", "'fast'"]),
        (
            "name: x\ngenerator: unet\nlearning_rate: -1\nphases: [{steps: 1}]",
            ["learning_rate", "-1", "greater than 0"],
        ),
        ("name: x\ngenerator: unet\nseed: true\nphases: [{steps: 1}]", ["seed", "True", "integer"]),
        ("name: x\ngenerator: unet\nphases: [{steps: 1, crop: 3}]", ["phases.0.crop", "crop_px"]),
        (
            "name: x\ngenerator: unet\nphases: [{steps: 1, crop_px: wide}]",
            ["phases.0.crop_px is 'wide'", "[height, width]"],
        ),
        ("name: x\ngenerator: unet\nphases: [{crop_px: 32}]", ["phases.0", "epochs or steps"]),
        ("name: x\ngenerator: unet\nphases: [{steps: 1, epochs: 1}]", ["phases.0", "epochs or steps"]),
        ("name: x\ngenerator: unet\nadversarial_loss: wgan\nphases: [{steps: 1}]", ["adversarial_loss", "hinge"]),
        ("name: x\ngenerator: unet\npretrained: {url: a}\nphases: [{steps: 1}]", ["pretrained", "sha256"]),
        ("name: x\ngenerator: unet\nfilm: {grian: 0.1}\nphases: [{steps: 1}]", ["film.grian", "'grain'"]),
        ("name: x\ngenerator: unet\nphases: []", ["phases", "at least 1"]),
        ("name: x\ngenerator: unet\n", ["'phases'", "missing"]),
        ("name: x\nphases: [{steps: 1}]", ["'generator'", "missing"]),
        ("- 1\n- 2\n", ["not a mapping"]),
        ("1: x\nname: x", ["not a mapping"]),
        ("name: [", ["not YAML"]),
        ("name: x\ngenerator: unet\nbetas: [0.5, 1.5]\nphases: [{steps: 1}]", ["betas.1 is 1.5", "less than 1"]),
        ("name: x\ngenerator: unet\nphases: [{epochs: .inf}]", ["phases.0.epochs", "finite"]),
    ],
)
def test_message_names_key_and_remedy(tmp_path: Path, text: str, named: list[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert all(part in str(caught.value) for part in named), str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("no-such")
    assert all(name in str(caught.value) for name in ["no-such", *shipped_recipes()])
    assert isinstance(caught.value, TrainingError)


def test_set_changes_nested_keys_and_lists(tiny_yaml: Path) -> None:
    changes = ("learning_rate=3e-4", "phases.1.batch=7", "film.grain=0.5", "generator_options.width=16", "colour=rgb")
    recipe = load_recipe(str(tiny_yaml), changes)
    assert (recipe.learning_rate, recipe.phases[1].batch, recipe.film.grain) == (3e-4, 7, 0.5)
    assert (recipe.generator_options["width"], recipe.output_channels) == (16, 3)
    assert load_recipe("organic-3c-resnet", ("pretrained=null",)).pretrained is None
    first = load_recipe(str(tiny_yaml), ("phases.0.epochs=3",)).phases[0]
    assert (first.epochs, first.steps) == (3, None)


@pytest.mark.parametrize("change", ["seed", "phases.9.batch=1", "phases.one.batch=1", "name.first=1", "sede=1"])
def test_wrong_set_is_one_line_with_the_key(change: str, tiny_yaml: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(tiny_yaml), (change,))
    assert change.partition("=")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_epochs_are_passes_over_the_pictures() -> None:
    schedule = _recipe(Phase(epochs=2, batch=10), Phase(epochs=1.5, batch=5)).schedule(95)
    assert schedule.total_steps == 2 * 10 + round(1.5 * 19)
    ends = [schedule.ends_epoch(step) for step in range(schedule.total_steps)]
    assert [(step, epoch) for step, epoch in enumerate(ends) if epoch] == [(9, 1), (19, 2), (38, 3), (47, 4)]
    assert schedule.epochs_at(20) == 2
    assert [schedule.phase_at(step).batch for step in (0, 19, 20, 99)] == [10, 10, 5, 5]


def test_learning_rate_warms_up_falls_to_zero_and_starts_anew_where_asked() -> None:
    phases = (Phase(steps=100), Phase(steps=100), Phase(steps=50, learning_rate=1e-4), Phase(steps=50))
    schedule = _recipe(*phases, learning_rate=1e-3, warmup_steps=10).schedule(1)
    rates = [1e-3 * schedule.rate_at(step) for step in range(schedule.total_steps)]
    assert rates[0] == pytest.approx(1e-4, rel=0.01)
    assert max(rates) == pytest.approx(1e-3, rel=0.02)
    assert rates[100] == pytest.approx(5e-4, rel=0.01)
    assert rates[199] < 1e-6
    assert rates[200] == pytest.approx(1e-4)
    assert rates[250] == pytest.approx(5e-5)
    assert rates[299] < 1e-6


def test_linear_decay_is_the_papers() -> None:
    """Isola et al. keep the rate for the first half and take it to zero over the second."""
    schedule = _recipe(Phase(steps=200), decay="linear").schedule(1)
    assert [schedule.rate_at(step) for step in (0, 100, 150)] == pytest.approx([1, 1, 0.5])
    constant = _recipe(Phase(steps=200), decay="constant").schedule(1)
    assert {constant.rate_at(step) for step in range(200)} == {1.0}
