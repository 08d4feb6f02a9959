"""The commands of those who train: ``train``, ``export`` and ``evaluate``. They need the extra ``train``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from flows.console import STOPPED, USAGE, stop

_OURS = {"training", "engines", "pipeline", "flows"}
_TRAIN = "pip install 'colorize-archive[train]'"


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """A user's errors as one line."""
    from engines.errors import EngineError
    from training.errors import TrainingError

    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OURS:
            raise
        stop(f"{error.name} is not installed: {_TRAIN}", USAGE)
    except (TrainingError, EngineError, OSError) as error:
        stop(error, USAGE)


def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or what colorize-archive recipes lists.")],
    data: Annotated[Path | None, typer.Option(help="Folder of colour photographs, or of NumPy l and ab files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run.", show_default="runs/RECIPE")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: phases.0.epochs=5")
    ] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="GPUs to use.", show_default="all")] = None,
) -> None:
    """Train a generator on your own photographs; OUT/model is what run --model takes."""
    with _one_line():
        from training.config import RUN_RECIPE, load_recipe, shipped_recipes
        from training.errors import RecipeError

        chosen = load_recipe(recipe, tuple(changes or ()))
        place = out or Path("runs") / chosen.name
        if resume and recipe in shipped_recipes() and (place / RUN_RECIPE).is_file():
            # What was changed when the run began stays changed, whether or not it is said again.
            begun = load_recipe(str(place / RUN_RECIPE), tuple(changes or ()))
            chosen = begun if begun.name == chosen.name else chosen
        folder = data or (Path(chosen.data) if chosen.data else None)
        if folder is None:
            raise RecipeError(f"recipe {chosen.name}: no pictures to learn from; give --data FOLDER")

        from training.export import export
        from training.loop import train as train_recipe

        try:
            trainer = train_recipe(chosen, folder, place, resume, devices, typer.echo)
        except KeyboardInterrupt as interrupt:
            step = f" at step {interrupt}" if str(interrupt) else ""
            stands = (place / "checkpoint.pt").is_file()
            after = f"; the checkpoint in {place} stands, go on with --resume" if stands else "; nothing was kept"
            stop(f"stopped{step}{after}", STOPPED)
        if trainer.fabric.global_rank == 0:
            model = export(place, place / "model", chosen.name)
            megabytes = model.onnx_path.stat().st_size / 1e6
            typer.echo(f"{model.folder}: {megabytes:.1f} MB, for colorize-archive run --model")


def export_model(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The --out folder of a training run, finished or not.")],
    out: Annotated[Path, typer.Option(help="The model folder to make.")],
    name: Annotated[str | None, typer.Option(help="The model's name.", show_default="the folder's")] = None,
    note: Annotated[str | None, typer.Option(help="A line for the model's card.")] = None,
    chroma_gain: Annotated[float, typer.Option(min=0.1, max=3, help="Multiply the colours; below 1 is calmer.")] = 1.0,
) -> None:
    """Make a model folder of a training run's last checkpoint."""
    with _one_line():
        from training.export import export

        model = export(run, out, name or out.absolute().name, chroma_gain, note)
        megabytes = model.onnx_path.stat().st_size / 1e6
        typer.echo(f"{model.folder}: {megabytes:.1f} MB, {model.card.training['steps']} steps")


def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Shipped models, or model folders.")],
    data: Annotated[Path, typer.Option(help="Folder of colour photographs.")],
    out: Annotated[Path | None, typer.Option(help="Folder for table, contact sheets and quiz.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All pictures, not only the fifth held out.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many pictures.")] = None,
    lpips_weights: Annotated[
        Path | None, typer.Option(help="Folder with LPIPS' weights.", show_default="torch's own cache")
    ] = None,
) -> None:
    """Measure models on photographs that training never saw, in one table beside gray and a flat tint."""
    with _one_line():
        from engines.spec import find_model
        from training.evaluation import evaluate as measure

        found = [find_model(model) for model in models]
        measure(found, data, out, limit=limit, everything=everything, lpips_weights=lpips_weights, report=typer.echo)


def recipes() -> None:
    """List the shipped recipes."""
    with _one_line():
        from training.config import load_recipe, shipped_recipes

        for name in shipped_recipes():
            recipe = load_recipe(name)
            typer.echo(f"{name}: {recipe.generator}, {recipe.source or recipe.description.partition('.')[0]}")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(train)
    app.command("export")(export_model)
    app.command()(evaluate)
    app.command()(recipes)
