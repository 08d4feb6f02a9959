"""The flow ``train-generator``: what ``colorize-archive train`` does, as a deployment."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows.orchestration.forms import shown, with_plain_form
from flows.orchestration.states import as_end
from flows.orchestration.subprocess_log import run_logged

_RECIPES = sorted(
    each.name.removesuffix(".yaml")
    for folder in ("recipes", "palette/recipes")
    for each in (files("training") / folder).iterdir()
    if each.name.endswith(".yaml")
)

Recipe = Annotated[
    str,
    shown("Recipe", f"A YAML file (absolute path), or one of {', '.join(_RECIPES)}.", minLength=1),
]
Photographs = Annotated[
    str, shown("Photographs", "Folder of colour photographs to learn from, as an absolute path.", minLength=1)
]
Run = Annotated[
    str,
    shown("Run folder", "Absolute path; its folder model is then a Model of colorize-archive.", minLength=1),
]
Resume = Annotated[bool, shown("Go on", "From the checkpoint in the run folder.")]
Changes = Annotated[
    list[Annotated[str, Field(json_schema_extra={"pattern": r"^[\w.]+=.*$"})]] | None,
    shown("Changes to the recipe", "KEY=VALUE, such as phases.0.epochs=5.", examples=[["phases.0.epochs=5"]]),
]
Devices = Annotated[
    Annotated[int, Field(json_schema_extra={"minimum": 1})] | None, shown("GPUs", "To use; empty: all.")
]


@with_plain_form
@flow(name="train-generator", persist_result=False)
def train_generator(
    data: Photographs,
    out: Run,
    recipe: Recipe = "efficientnet-unet",
    resume: Resume = False,
    changes: Changes = None,
    devices: Devices = None,
) -> State[Any]:
    """Train a generator, or a palette, on your own photographs.

    Parameters
    ----------
    data : folder of colour photographs
    out : folder of the run; ``out/model`` is the model
    recipe : a YAML file, or a shipped recipe by name
    resume : go on from the checkpoint in ``out``; a run that was broken off and is started again does so by itself
    changes : ``KEY=VALUE`` each
    devices : GPUs to use, all if not given
    """
    begun = flow_run.get_run_count() > 1 and (Path(out) / "checkpoint.pt").is_file()
    words = ["train", recipe, "--data", data, "--out", out]
    words += ["--resume"] if resume or begun else []
    words += [word for change in changes or () for word in ("--set", change)]
    words += ["--devices", str(devices)] if devices else []
    ended = run_logged(words, get_run_logger().info)
    return as_end(Failed(message=ended.last_line) if ended.code else Completed(message=ended.last_line))
