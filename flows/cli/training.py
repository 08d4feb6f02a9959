"""The commands for training, such as ``train``, ``export`` and ``evaluate``. They need the extra ``train``."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.console import STOPPED, USAGE, live_line, say, stop
from flows.cli.json_output import AsJson, print_json
from flows.cli.tables import first_sentence, narrowed

if TYPE_CHECKING:
    from training.evaluation.table import Row

_OURS = {"training", "engines", "pipeline", "flows"}
_SMALLEST_SIDE_PX = 32
_TRAIN = "pip install 'colorize-archive[train]'"


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Report a user's errors in one line."""
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
    generator: Annotated[
        str | None,
        typer.Option(
            help="With a palette's recipe: the model whose generator it is joined with.", show_default="default"
        ),
    ] = None,
) -> None:
    """Train a generator on your own photographs; OUT/model is what run --model takes."""
    with _one_line():
        from training.config import RUN_RECIPE, load_recipe, shipped_recipes
        from training.errors import RecipeError
        from training.palette.recipe import palette_recipes

        if recipe in palette_recipes():
            if devices is not None and devices > 1:
                raise RecipeError(f"--devices {devices}: recipe {recipe} learns on one GPU; leave it out")
            _train_palette(
                recipe, data, out or Path("runs") / recipe, resume, tuple(changes or ()), generator or "default"
            )
            return
        if generator is not None:
            raise RecipeError(
                f"--generator {generator}: recipe {recipe} trains a generator itself; leave it out, and give it to "
                "train palette-own, which joins the two"
            )
        chosen = load_recipe(recipe, tuple(changes or ()))
        place = out or Path("runs") / chosen.name
        if resume and recipe in shipped_recipes() and (place / RUN_RECIPE).is_file():
            # Changes given when the run began still hold, even if they are not given again.
            begun = load_recipe(str(place / RUN_RECIPE), tuple(changes or ()))
            chosen = begun if begun.name == chosen.name else chosen
        folder = data or (Path(chosen.data) if chosen.data else None)
        if folder is None:
            raise RecipeError(f"recipe {chosen.name}: no pictures to learn from; give --data FOLDER")

        from training.export import export
        from training.loop import train as train_recipe
        from training.watch import unwatched

        try:
            # Further processes of a training on several GPUs are this command again.
            with live_line(os.environ.get("LOCAL_RANK", "0") == "0") as (report, show):
                trainer = train_recipe(chosen, folder, place, resume, devices, report, show or unwatched)
        except KeyboardInterrupt as interrupt:
            step = f" at step {interrupt}" if str(interrupt) else ""
            stands = (place / "checkpoint.pt").is_file()
            after = f"; the checkpoint in {place} stands, go on with --resume" if stands else "; nothing was kept"
            stop(f"stopped{step}{after}", STOPPED)
        if trainer.fabric.global_rank == 0:
            model = export(place, place / "model", chosen.name)
            megabytes = model.onnx_path.stat().st_size / 1e6
            say(f"{model.folder}: {megabytes:.1f} MB, for colorize-archive run --model")


def _train_palette(
    recipe: str, data: Path | None, out: Path, resume: bool, changes: tuple[str, ...], generator: str
) -> None:
    from training.errors import RecipeError
    from training.palette.recipe import load_palette_recipe

    chosen = load_palette_recipe(recipe, changes)
    if data is None:
        raise RecipeError(f"recipe {recipe}: no pictures to learn from; give --data FOLDER")

    say(f"recipe {recipe}: getting ready")  # the next imports take seconds
    from training.palette.run import train_palette
    from training.watch import unwatched

    try:
        with live_line() as (report, show):
            model = train_palette(chosen, data, out, resume, generator=generator, report=report, show=show or unwatched)
    except KeyboardInterrupt:
        stop(f"stopped; what is in {out} stands, go on with the same command and --resume", STOPPED)
    say(f"{model.folder}: for colorize-archive run --model")


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
        say(f"{model.folder}: {megabytes:.1f} MB, {model.card.training['steps']} steps")


def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Shipped models, or model folders.")],
    data: Annotated[Path | None, typer.Option(help="Folder of colour photographs.")] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Pictures that come with the package, in the place of --data: historic.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for table, contact sheets and quiz.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All pictures, not only the fifth held out.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many pictures.")] = None,
    short_side: Annotated[
        str, typer.Option(metavar="PX|full", help="Shrink or enlarge pictures to this short side; full is their own.")
    ] = "256",
    stlpips_weights: Annotated[
        Path | None, typer.Option(help="ST-LPIPS' weights.", show_default="those of the installed stlpips-pytorch")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure models on photographs that training never saw, in one table beside gray and a flat tint."""
    with _one_line():
        from engines.spec import find_model
        from training.errors import DataError
        from training.evaluation import evaluate as measure
        from training.evaluation.benchmarks import benchmark_folder

        if (data is None) == (benchmark is None):
            raise DataError("nothing, or two things, to measure on; give either --data FOLDER or --benchmark historic")
        folder = data if data is not None else benchmark_folder(str(benchmark))
        found = [find_model(model) for model in models]
        everything = everything or benchmark is not None
        rows = measure(
            found,
            folder,
            out,
            limit=limit,
            short_side_px=_side_px(short_side),
            everything=everything,
            stlpips_weights=stlpips_weights,
            report=_silent if as_json else _say_lines,
        )
    if as_json:
        print_json("evaluate", {"data": str(folder), "out": None if out is None else str(out), "rows": _flat(rows)})


def _silent(_: str) -> None:
    pass


def _flat(rows: list[Row]) -> list[dict[str, Any]]:
    return [row.flat() for row in rows]


def _say_lines(text: str) -> None:
    """Print lines; tables as they are into a file or a pipe, where nothing is too wide."""
    shown = narrowed(text, shutil.get_terminal_size().columns) if sys.stdout.isatty() else text
    for line in shown.split("\n"):
        say(line)


def _side_px(text: str) -> int | None:
    from training.errors import DataError

    if text == "full":
        return None
    if not text.isdecimal() or int(text) < _SMALLEST_SIDE_PX:
        raise DataError(f"--short-side {text}: no size; give {_SMALLEST_SIDE_PX} or more pixels, or full")
    return int(text)


def reproduce(
    system: Annotated[
        str,
        typer.Argument(help="dilated-gan, mobilenet-fusion, patchgan-study, unet-cgan or pix2pix-2048x4096."),
    ],
    data: Annotated[Path, typer.Option(help="Folder of colour photographs.")],
    out: Annotated[Path, typer.Option(help="Folder for the page and all that it shows.")],
    minutes: Annotated[float, typer.Option(min=0.01, help="Time for training and measuring, about.")] = 10.0,
    full: Annotated[
        bool, typer.Option("--full", help="The report's own pictures, sizes and epochs: days on a GPU.")
    ] = False,
    folders: Annotated[
        list[str] | None, typer.Option("--folder", help="Only pictures in such folders, as 'aquarium*'; repeat it.")
    ] = None,
    historic: Annotated[
        Path | None, typer.Option(help="Folder of photographs without colours, for patchgan-study.")
    ] = None,
    unseen: Annotated[
        Path | None,
        typer.Option(help="Colour photographs from elsewhere, for unet-cgan.", show_default="the historic benchmark"),
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(help="Folder of results that people saved from the quiz of patchgan-study.")
    ] = None,
) -> None:
    """Train what a report compares, and make the page of its tables, curves and pictures; again, to go on."""
    with _one_line():
        from training.reproduce import Request
        from training.reproduce import reproduce as make_page

        request = Request(data, out, minutes, full, tuple(folders or ()), historic, unseen, answers)
        try:
            say(make_page(system, request, _say_lines))
        except KeyboardInterrupt:
            stop(f"stopped; what is in {out} stands, go on with the same command", STOPPED)


def quiz(
    answers: Annotated[Path, typer.Argument(metavar="FOLDER", help="Results that people saved from one quiz.")],
    as_json: AsJson = False,
) -> None:
    """Pool several people's answers to a quiz."""
    with _one_line():
        from training.evaluation.answers import pooled

        told = pooled(answers)
        if as_json:
            print_json("quiz", told.to_json())
            return
        head, *lines = (" | ".join(cells) for cells in told.cells())
        _say_lines("\n".join([told.caption, "", f"| {head} |", "|---" * 4 + "|", *(f"| {line} |" for line in lines)]))


def recipes(as_json: AsJson = False) -> None:
    """List the shipped recipes."""
    with _one_line():
        from training.config import load_recipe, shipped_recipes
        from training.palette.recipe import load_palette_recipe, palette_recipes

        if as_json:
            found = [(name, load_recipe(name)) for name in shipped_recipes()]
            rows: list[dict[str, str | None]] = [
                {"name": name, "generator": each.generator, "description": each.source or each.description}
                for name, each in found
            ]
            for name in palette_recipes():
                rows.append({"name": name, "generator": None, "description": load_palette_recipe(name).description})
            print_json("recipes", {"recipes": rows})
            return
        for name in shipped_recipes():
            recipe = load_recipe(name)
            say(f"{name}: {recipe.generator}, {recipe.source or first_sentence(recipe.description)}")
        for name in palette_recipes():
            say(f"{name}: {first_sentence(load_palette_recipe(name).description)}")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(train)
    app.command("export")(export_model)
    app.command()(evaluate)
    app.command()(reproduce)
    app.command()(quiz)
    app.command()(recipes)
