"""Checkpoints, written to a temporary file and renamed, so that an interrupted run keeps its last complete one.

A run with patience keeps a second one: that of its best evaluation.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from training.config import Recipe
from training.errors import RecipeError, TrainingError

CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"
# Keys that may change when a run is resumed: how it is stored and reported, never what a step does.
_FREE = {
    "checkpoint_steps",
    "sample_epochs",
    "patience",
    "compile",
    "data",
    "pretrained",
    "description",
    "source",
    "reported",
}
_LENGTHS = {"steps", "epochs"}


def save(folder: Path, state: dict[str, Any], name: str = CHECKPOINT) -> None:
    """Write ``checkpoint.pt``, or another ``name``, in ``folder``.

    Raises
    ------
    TrainingError : the file cannot be written, as on a full disk; the previous checkpoint is kept.
    """
    part = folder / f"{name}.part"
    try:
        torch.save(state, part)
        os.replace(part, folder / name)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError on a full disk
        part.unlink(missing_ok=True)
        stands = "the checkpoint before it stands" if (folder / name).is_file() else "there is none before it"
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        raise TrainingError(
            f"{folder / name} at step {state['step']}: cannot be written ({reason}); {stands}; "
            "make room and go on with --resume"
        ) from error


def load(folder: Path, device: torch.device | str = "cpu", name: str = CHECKPOINT) -> dict[str, Any]:
    """Read the checkpoint of ``folder``, or the one called ``name``.

    Raises
    ------
    TrainingError : there is no checkpoint, or it cannot be read.
    """
    path = folder / name
    if not path.is_file():
        raise TrainingError(f"{folder}: no {name}; give the --out folder of a training run")
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        Recipe(**state["recipe"])
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(f"{path}: not a checkpoint of this version ({reason}); train again") from error
    return state


def _comparable(recipe: dict[str, Any], phases: int) -> dict[str, Any]:
    """A recipe's keys for comparison, without lengths: phases may be added, and may become longer or shorter."""
    known = {f"phases.{i}.{key}": value for i, phase in enumerate(recipe["phases"][:phases])
             for key, value in phase.items() if key not in _LENGTHS}  # fmt: skip
    return {key: value for key, value in recipe.items() if key != "phases"} | known


def check_same(folder: Path, state: dict[str, Any], recipe: Recipe, told: dict[str, Any]) -> None:
    """Refuse to resume a run if that would change its steps or invalidate its record.

    Parameters
    ----------
    told : other values by name that must equal the state's, such as the pictures' hash and the number of processes

    Raises
    ------
    RecipeError : names the first keys that differ.
    """
    now = recipe.model_dump(mode="json")
    phases = len(state["recipe"]["phases"])
    # A key that a later release added has its default in an older run.
    earlier = Recipe(**state["recipe"]).model_dump(mode="json")
    before, now = (_comparable(values, phases) for values in (earlier, now))
    before, now = before | {name: state.get(name) for name in told}, now | told
    differing = sorted(key for key in before | now if key not in _FREE and before.get(key) != now.get(key))
    if differing:
        key = differing[0]
        others = f" (and {', '.join(differing[1:])})" if differing[1:] else ""
        raise RecipeError(
            f"{folder}: was trained with {key} {before.get(key)!r}, now it is {now.get(key)!r}{others}; "
            "resume with the recipe and the pictures it began with, or give a new --out"
        )
