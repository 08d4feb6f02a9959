"""The recipe of a palette network: everything that determines its training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from training.config import Film, Licences, Number, Positive, Share, read_recipe

RECIPES = Path(__file__).parent / "recipes"


class PaletteRecipe(BaseModel):
    """One training run of a palette head.

    Attributes
    ----------
    start : a shipped model, or a model folder, to continue from its head; None starts from the published blocks
    licences : "clean" leaves out pictures whose licence is unknown or allows research only
    cells : rows and columns of patches of 14 px that the network sees
    trained_blocks : number of last transformer blocks to train; the others stay as published
    views : number of views of each picture: whole, mirrored on old film, and from the third on square crops
    epochs : how often each picture is shown, one of its views at a time
    head_rate, block_rate : highest learning rates; both fall to zero along a cosine
    difference_weight : weight of the mean colour's CIEDE2000, added to the cross-entropy
    least_chroma : share of the true chroma that the choice of temperature and gain must reach
    patience : stop after so many evaluations in a row, one at each checkpoint, without a lower loss on the kept
        pictures, and take the weights of the lowest; None trains all steps, without evaluations, and takes the last
    rare_weight : 0 weighs all colours equally, 1 by their rarity
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = "palette"
    description: str = ""
    start: str | None = None
    licences: Licences = "all"
    cells: Annotated[int, Field(ge=4, le=37)] = 16
    trained_blocks: Annotated[int, Field(ge=0, le=12)] = 4
    views: Annotated[int, Field(ge=1)] = 4
    film: Film = Film(gamma=0.35, fade=0.12, grain=0.05, blur_px=1.2)
    epochs: Positive = 3.0
    batch: Annotated[int, Field(gt=0)] = 32
    head_rate: Positive = 1e-3
    block_rate: Annotated[Number, Field(ge=0)] = 5e-5
    weight_decay: Annotated[Number, Field(ge=0)] = 0.05
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    ema_decay: Share = 0.998
    dropout: Share = 0.1
    difference_weight: Annotated[Number, Field(ge=0)] = 0.15
    rare_weight: Share = 0.3
    least_chroma: Share = 0.7
    compile: bool = False
    checkpoint_steps: Annotated[int, Field(gt=0)] = 50
    patience: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0


def palette_recipes() -> list[str]:
    """Names of the palette recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_palette_recipe(name_or_path: str, changes: tuple[str, ...] = ()) -> PaletteRecipe:
    """A shipped palette recipe by name, or a YAML file; ``changes`` are ``key=value``. Raises RecipeError."""
    path = RECIPES / f"{name_or_path}.yaml" if name_or_path in palette_recipes() else Path(name_or_path)
    return read_recipe(PaletteRecipe, path, changes)
