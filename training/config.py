"""A recipe: everything that decides what a training run makes, read from one YAML file and checked on load."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from training.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one crop size and one balance of the losses.

    ``content_weight`` is pix2pix's lambda; ``adversarial_weight`` 0 is content-only pretraining. ``vivid_weight`` makes
    saturated pixels count more. A ``learning_rate`` above 0 starts a new cosine, from that rate, with this phase.
    """

    steps: int
    crop_px: int = 128
    batch: int = 16
    content_weight: float = 100.0
    adversarial_weight: float = 0.0
    vivid_weight: float = 0.0
    learning_rate: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """One training run. ``phases`` follow one another; the learning rate falls along a cosine, anew where one asks."""

    name: str
    generator: str
    generator_options: dict[str, Any] = field(default_factory=dict)
    discriminator: str = "patchgan"
    discriminator_options: dict[str, Any] = field(default_factory=dict)
    pretrained: str = ""
    content_loss: str = "l1"
    phases: tuple[Phase, ...] = ()
    learning_rate: float = 2e-4
    discriminator_learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.0
    warmup_steps: int = 200
    ema_decay: float = 0.999
    chroma_scale: float = 110.0
    smallest_crop_px: int = 80
    gamma_jitter: float = 0.3
    noise: float = 0.02
    precision: str = "bf16"
    seed: int = 0
    checkpoint_steps: int = 250
    description: str = ""

    @property
    def total_steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> Phase:
        """The phase that ``step`` (from 0) belongs to; the last one past the end."""
        end = 0
        for phase in self.phases:
            end += phase.steps
            if step < end:
                return phase
        return self.phases[-1]

    def learning_rate_at(self, step: int) -> float:
        """The generator's learning rate at ``step``: warm-up, then a cosine to zero over each run of phases."""
        rate, begin, end = self.learning_rate, 0, 0
        for phase in self.phases:
            if phase.learning_rate > 0:
                if step < end:
                    break
                rate, begin = phase.learning_rate, end
            end += phase.steps
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return rate * warm * 0.5 * (1 + math.cos(math.pi * (step - begin) / max(1, end - begin)))


_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}


def _checked(kind: type, values: dict[str, Any], where: str) -> dict[str, Any]:
    known = {f.name: f for f in dataclasses.fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}; known keys are {', '.join(sorted(known))}")
        default = known[key].default
        wanted = _KINDS.get(str(known[key].type))
        if wanted is not None and (not isinstance(value, wanted) or isinstance(value, bool)):
            raise RecipeError(f"{where}: {key} is {value!r}; give a {known[key].type}, such as {default!r}")
    required = {name for name, f in known.items() if f.default is f.default_factory is dataclasses.MISSING}
    if missing := sorted(required - set(values)):
        raise RecipeError(f"{where}: {missing[0]!r} is missing; add it")
    return values


def load_recipe(name_or_path: str) -> Recipe:
    """Read a shipped recipe by name, or a YAML file by path.

    Raises
    ------
    RecipeError : no such recipe, unknown or missing key, value of the wrong type, or no phases.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        path = RECIPES / f"{name_or_path}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise RecipeError(f"no recipe {name_or_path!r}; give a YAML file or one of: {shipped}")
    values = yaml.safe_load(path.read_text())
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: not a mapping of keys to values; see {RECIPES}")
    phases = tuple(Phase(**_checked(Phase, dict(p), f"{path}: phases")) for p in values.pop("phases", []))
    if not phases:
        raise RecipeError(f"{path}: no phases; add at least one with its number of steps")
    checked = _checked(Recipe, values, str(path))
    if "betas" in checked:
        checked["betas"] = tuple(checked["betas"])
    return Recipe(**checked, phases=phases)
