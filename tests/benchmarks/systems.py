"""Every system's recipe trained and measured: one command, one table.

python -m tests.benchmarks.systems --data DIR --out DIR [--full] [--only NAME] [--also MODEL]
    [--random-start NAME] [--limit N]

Without ``--full`` each recipe is cut to what two processor cores do in some minutes: crops of 128 px, few epochs, and
what else stands beside its name below; a row of the table says how long and at what size. Published
weights out of reach stop a recipe; --random-start NAME begins it without. A stopped command goes on where it was.

--historic DIR paints real black-and-white photographs with every model into one sheet, the last test of system 3;
--second DIR measures on a collection that no training has seen, as system 4 does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from engines.spec import find_model
from training.reproduce.figures import without_truth

COMMAND = [sys.executable, "-m", "flows.cli"]
# The depths fit the crops, and six layers of PatchGAN do not fit pix2pix's.
SHORT: dict[str, tuple[str, ...]] = {
    "dilated-gan": ("phases.0.crop_px=128", "phases.0.epochs=3"),
    "mobilenet-fusion": ("phases.0.crop_px=128", "phases.0.epochs=6"),
    "organic-3a-residual": ("phases.0.crop_px=96", "phases.0.epochs=1"),
    "organic-3b-unet": ("phases.0.crop_px=128", "phases.0.epochs=1.5"),
    "organic-3c-resnet": ("phases.0.crop_px=128", "phases.0.epochs=3"),
    "organic-3d-pretrained": (
        "phases.0.crop_px=128", "phases.0.epochs=1", "phases.1.crop_px=128", "phases.1.epochs=1",
    ),
    "unet-cgan": ("phases.0.crop_px=128", "phases.0.epochs=3", "generator_options.depth=7", "sample_epochs=[1, 2, 3]"),
    "pix2pix-2048x4096": (
        "phases.0.crop_px=[256, 512]", "phases.0.epochs=0.4", "phases.0.batch=4", "discriminator_options.layers=3",
        "sample_epochs=[1]",
    ),
}  # fmt: skip


def _run(*arguments: object) -> None:
    subprocess.run([*COMMAND, *map(str, arguments)], check=True)


def _train(name: str, data: Path, out: Path, changes: list[str]) -> Path:
    model = out / name / "model"
    if not model.is_dir():
        print(f"== {name} {' '.join(changes)}", flush=True)
        settings = [part for change in changes for part in ("--set", change)]
        _run("train", name, "--data", data, "--out", out / name, "--resume", *settings)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--full", action="store_true", help="the recipes as they are: needs a GPU")
    parser.add_argument("--only", action="append", choices=sorted(SHORT), help="this recipe; may be repeated")
    parser.add_argument("--also", action="append", default=[], help="another model for the table; may be repeated")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="for every recipe")
    parser.add_argument(
        "--random-start", action="append", default=[], help="a recipe whose published weights are out of reach"
    )
    parser.add_argument("--historic", type=Path, help="folder of black-and-white photographs")
    parser.add_argument("--second", type=Path, help="folder of colour photographs from elsewhere")
    parser.add_argument("--limit", type=int, help="measure on so many pictures")
    options = parser.parse_args()
    models = []
    for name in options.only or SHORT:
        changes = [] if options.full else list(SHORT[name])
        changes += ["pretrained=null"] if name in options.random_start else []
        models.append(_train(name, options.data, options.out, changes + options.changes))
    limit = ["--limit", options.limit] if options.limit else []
    shown = [*options.also, *map(str, models)]
    _run("evaluate", *shown, "--data", options.data, "--out", options.out / "table", *limit)
    if options.second:
        _run("evaluate", *shown, "--data", options.second, "--all", "--out", options.out / "second")
    if options.historic:
        models_found = [find_model(model) for model in shown]
        print(without_truth(models_found, options.historic, options.out / "historic.jpg"))


if __name__ == "__main__":
    main()
