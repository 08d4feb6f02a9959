"""Train, export and evaluate generators.

python -m training train RECIPE --data DIR --out DIR [--resume] [--pretrained FILE]
python -m training export RUN_DIR --out FOLDER [--name NAME] [--data DIR] [--note TEXT]
python -m training evaluate MODEL... --data DIR [--out DIR] [--all] [--limit N]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.errors import EngineError
from training.errors import RecipeError, TrainingError

_OURS = {"training", "engines", "pipeline", "flows"}


def _train(options: argparse.Namespace) -> None:
    from training.config import load_recipe
    from training.loop import train

    recipe = load_recipe(options.recipe)
    if options.pretrained is not None:
        pretrained = "" if options.pretrained == "none" else options.pretrained
        recipe = dataclasses.replace(recipe, pretrained=pretrained)
    if recipe.pretrained and not Path(recipe.pretrained).is_file():
        raise RecipeError(
            f"pretrained weights {recipe.pretrained!r}: no such file; give --pretrained FILE, "
            "or --pretrained none to start from random weights"
        )
    print(f"starts from {Path(recipe.pretrained).name}" if recipe.pretrained else "starts from random weights")
    train(recipe, options.data, options.out, options.resume)


def _export(options: argparse.Namespace) -> None:
    from training.export import describe_data, export

    training: dict[str, Any] = {"data": describe_data(options.data)} if options.data else {}
    if not options.data:
        print("without --data the card names no photographs, sources or licences")
    if options.note:
        training["note"] = options.note
    model = export(options.run, options.out, options.name or options.out.absolute().name, training, options.chroma_gain)
    megabytes = model.onnx_path.stat().st_size / 1e6
    print(f"{model.folder}: {model.card.name}, {megabytes:.1f} MB, {model.card.training['steps']} steps")


def _evaluate(options: argparse.Namespace) -> None:
    from engines.spec import find_model
    from training.evaluate import evaluate

    models = [find_model(model) for model in options.models]
    evaluate(models, options.data, options.out, options.limit, everything=options.all)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Train, export and evaluate generators.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("train", help="train a recipe on a folder of colour photographs")
    command.add_argument("recipe", help="name of a shipped recipe, or a YAML file")
    command.add_argument("--data", type=Path, required=True, help="folder of colour photographs")
    command.add_argument("--out", type=Path, required=True, help="folder for checkpoint and losses")
    command.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    command.add_argument("--pretrained", metavar="FILE", help="encoder weights, or 'none' for random ones")
    command.set_defaults(run_command=_train)

    command = commands.add_parser("export", help="make a model folder of a training run")
    command.add_argument("run", type=Path, metavar="RUN_DIR", help="the --out folder of a training run")
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the model folder to make")
    command.add_argument("--name", help="the model's name; default: the folder's")
    command.add_argument("--data", type=Path, help="the training photographs: their counts and licences go on the card")
    command.add_argument("--note", help="a line for the card")
    command.add_argument("--chroma-gain", type=float, default=1.0, help="multiply the chroma; below 1 is calmer")
    command.set_defaults(run_command=_export)

    command = commands.add_parser("evaluate", help="measure models on photographs that training never saw")
    command.add_argument("models", nargs="*", metavar="MODEL", help="name of a shipped model, or a model folder")
    command.add_argument("--data", type=Path, required=True, help="folder of colour photographs")
    command.add_argument("--out", type=Path, help="folder for the table and a contact sheet a model")
    command.add_argument("--all", action="store_true", help="take every picture, not the fifth held out")
    command.add_argument("--limit", type=_positive, metavar="N", help="at most N pictures")
    command.set_defaults(run_command=_evaluate)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 2 a user's error (one line), 130 stopped."""
    options = _parser().parse_args(arguments)
    try:
        options.run_command(options)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OURS:
            raise
        print(f"{error.name} is not installed: pip install 'colorize-archive[train]'", file=sys.stderr)
        return 2
    except (TrainingError, EngineError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        stands = options.run_command is _train and (options.out / "checkpoint.pt").is_file()
        after = f"; the last checkpoint in {options.out} stands, continue with --resume" if stands else ""
        print(f"stopped{after}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
