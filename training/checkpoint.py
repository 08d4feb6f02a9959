"""Checkpoints: written beside and renamed, so that whatever stops a run leaves the last good one."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from training.config import Recipe
from training.errors import RecipeError, TrainingError

CHECKPOINT = "checkpoint.pt"
# What may differ between a run and its continuation: lengths and what is kept, never what a step does.
_FREE = {"phases", "checkpoint_steps", "sample_epochs", "compile", "data", "description", "source", "reported"}


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write ``checkpoint.pt`` in ``folder``.

    Raises
    ------
    TrainingError : it cannot be written, as on a full disk; the one before stands.
    """
    part = folder / f"{CHECKPOINT}.part"
    try:
        torch.save(state, part)
        os.replace(part, folder / CHECKPOINT)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError on a full disk
        part.unlink(missing_ok=True)
        stands = "the checkpoint before it stands" if (folder / CHECKPOINT).is_file() else "there is none before it"
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        raise TrainingError(
            f"{folder / CHECKPOINT} at step {state['step']}: cannot be written ({reason}); {stands}; "
            "make room and go on with --resume"
        ) from error


def load(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read the checkpoint of ``folder``.

    Raises
    ------
    TrainingError : there is none, or it cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise TrainingError(f"{folder}: no {CHECKPOINT}; give the --out folder of a training run")
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        Recipe(**state["recipe"])
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(f"{path}: not a checkpoint of this version ({reason}); train again") from error
    return state


def check_same(folder: Path, state: dict[str, Any], recipe: Recipe) -> None:
    """Refuse to continue a run with a recipe under which its step would mean something else.

    Raises
    ------
    RecipeError : names the first keys that differ.
    """
    before, now = state["recipe"], recipe.model_dump(mode="json")
    differing = sorted(key for key in now if key not in _FREE and before.get(key) != now[key])
    if differing:
        key = differing[0]
        others = f" (and {', '.join(differing[1:])})" if differing[1:] else ""
        raise RecipeError(
            f"{folder}: was trained with {key} {before.get(key)!r}, the recipe now says {now[key]!r}{others}; "
            "resume with the recipe it began with, or give a new --out"
        )
