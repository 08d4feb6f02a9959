from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("yaml")

from training.config import RECIPES, Phase, Recipe, load_recipe
from training.errors import RecipeError, TrainingError

SHIPPED = sorted(path.stem for path in RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipe_loads(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.total_steps == sum(phase.steps for phase in recipe.phases) > 0
    assert recipe.description


def test_phase_at_walks_the_phases(tiny_yaml: Path) -> None:
    recipe = load_recipe(str(tiny_yaml))
    assert [recipe.phase_at(step).crop_px for step in (0, 1, 2, 3, 99)] == [16, 16, 32, 32, 32]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name: x\ngenerator: unet\nlearning_rat: 1.0\nphases: [{steps: 1}]", ["learning_rat", "learning_rate"]),
        ("name: x\ngenerator: unet\nlearning_rate: fast\nphases: [{steps: 1}]", ["learning_rate", "'fast'", "float"]),
        ("name: x\ngenerator: unet\nseed: true\nphases: [{steps: 1}]", ["seed", "int"]),
        ("name: x\ngenerator: unet\nphases: [{steps: 1, crop: 3}]", ["phases", "'crop'", "crop_px"]),
        ("name: x\ngenerator: unet\nphases: [{crop_px: 32}]", ["'steps'", "missing"]),
        ("name: x\ngenerator: unet\n", ["no phases", "add"]),
        ("name: x\nphases: [{steps: 1}]", ["'generator'", "missing"]),
        ("- 1\n- 2\n", ["not a mapping"]),
    ],
)
def test_message_names_key_and_remedy(tmp_path: Path, text: str, named: list[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert all(part in str(caught.value) for part in named)
    assert "\n" not in str(caught.value)


def test_missing_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("no-such")
    assert all(name in str(caught.value) for name in ["no-such", *SHIPPED])
    assert isinstance(caught.value, TrainingError)


def test_learning_rate_warms_up_falls_to_zero_and_starts_anew_where_asked() -> None:
    phases = (Phase(100), Phase(100), Phase(50, learning_rate=1e-4), Phase(50))
    recipe = Recipe("tiny", "unet", phases=phases, learning_rate=1e-3, warmup_steps=10)
    rates = [recipe.learning_rate_at(step) for step in range(recipe.total_steps)]
    assert rates[0] == pytest.approx(1e-4, rel=0.01)
    assert max(rates) == pytest.approx(1e-3, rel=0.02)
    assert rates[100] == pytest.approx(5e-4, rel=0.01)
    assert rates[199] < 1e-6
    assert rates[200] == pytest.approx(1e-4)
    assert rates[250] == pytest.approx(5e-5)
    assert rates[299] < 1e-6
