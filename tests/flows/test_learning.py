"""The commands train, export, evaluate, reproduce, quiz and recipes, as a person types them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from engines.spec import find_model
from flows.cli.app import app
from tests.patience import PATIENCE_SECONDS, wait_until

COMMAND = [sys.executable, "-m", "flows.cli"]
TINY = {
    "name": "tiny",
    "generator": "unet",
    "generator_options": {"width": 8, "depth": 3},
    "discriminator_options": {"layers": 1, "width": 8},
    "precision": "32-true",
    "checkpoint_steps": 2,
    "smallest_crop_px": 16,
    "phases": [{"steps": 4, "crop_px": 32, "batch": 2, "adversarial_weight": 1}],
}


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(1)
    for i in range(24):
        bgr = cv2.resize(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8), (96, 64), interpolation=cv2.INTER_CUBIC)
        assert cv2.imwrite(str(folder / f"{i:02}.png"), bgr)
    (folder / "broken.jpg").write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(json.dumps(TINY))
    return path


@pytest.mark.e2e
def test_from_a_folder_of_photographs_to_a_model_and_a_table(photographs: Path, recipe: Path, tmp_path: Path) -> None:
    trained = _run("train", recipe, "--data", photographs, "--out", tmp_path / "run", "--set", "seed=7")
    assert trained.returncode == 0, trained.stderr
    assert "1 left out" in trained.stdout
    card = find_model(str(tmp_path / "run" / "model")).card
    assert (card.name, card.training["seed"], card.training["steps"]) == ("tiny", 7, 4)
    strange = tmp_path / "calm\a\x1b[2J|\n2"
    calm = _run("export", tmp_path / "run", "--out", strange, "--chroma-gain", "0.5", "--note", "calmer")
    assert calm.returncode == 0, calm.stderr
    assert find_model(str(strange)).card.chroma_scale == card.chroma_scale / 2
    measured = _run("evaluate", tmp_path / "run" / "model", strange, "--data", photographs,
                    "--out", tmp_path / "table")  # fmt: skip
    assert measured.returncode == 0, measured.stderr
    assert "| tiny |" in measured.stdout
    shown = r"calm\x07\x1b[2J|\n2"
    assert f"/{shown}: 0.0 MB" in calm.stdout
    assert f"| {shown.replace('|', chr(92) + '|')} |" in measured.stdout
    said = trained.stdout + calm.stdout + measured.stdout
    assert not {letter for letter in said if ord(letter) < 0x20} - {"\n"}
    assert (tmp_path / "table" / "quiz.html").is_file()


@pytest.mark.e2e
def test_two_processes_train_one_model(photographs: Path, recipe: Path, tmp_path: Path) -> None:
    """What several GPUs do, on processors."""
    where = ["--data", photographs, "--out", tmp_path / "run"]
    done = _run("train", recipe, *where, "--set", "phases.0.epochs=2", "--devices", "2")
    assert done.returncode == 0, done.stderr
    assert "2 x cpu" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "run" / "losses.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    pictures = json.loads((tmp_path / "run" / "run.json").read_text())["data"]["pictures"]
    assert lines[-1]["step"] == 2 * -(-(pictures // 2) // 2)  # half of the pictures each, two in a batch
    assert find_model(str(tmp_path / "run" / "model")).card.training["epochs"] == pytest.approx(2, abs=0.1)


def _interrupted_at(words: list[Any], log: Path) -> tuple[int, str]:
    """Start a training, stop it with Ctrl-C some steps after the first, and give the step and what it said."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )
    wait_until(lambda: log.is_file() and log.read_text().count("\n"))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    found = re.search(r"stopped at step (\d+)", said.splitlines()[-1])
    assert found, said
    assert "--resume" in said.splitlines()[-1], said
    return int(found[1]), said


@pytest.mark.e2e
def test_ctrl_c_keeps_the_step_and_resume_needs_no_setting_again(photographs: Path, tmp_path: Path) -> None:
    tiny = "phases=[{steps: 100000, crop_px: 32, batch: 1, content_weight: 1}]"
    where = ["organic-3a-residual", "--data", photographs, "--out", tmp_path / "run"]
    # No checkpoint is due before the stop.
    settings = ["--set", tiny, "--set", "smallest_crop_px=16", "--set", "checkpoint_steps=90000"]
    settings += ["--set", "generator_options={width: 8, blocks: 1}"]
    step, _ = _interrupted_at(["train", *where, *settings], tmp_path / "run" / "losses.jsonl")
    again = _run("train", *where, "--resume", "--set", f"phases.0.steps={step + 3}")
    assert again.returncode == 0, again.stderr
    assert f"continues at step {step} of {step + 3}" in again.stdout
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["phases"][0]["batch"] == 1


@pytest.mark.e2e
def test_resume_where_there_is_nothing_is_refused(photographs: Path, recipe: Path, tmp_path: Path) -> None:
    done = _run("train", recipe, "--data", photographs, "--out", tmp_path / "run", "--resume")
    assert done.returncode == 2, done.stderr
    assert f"{tmp_path / 'run'}: no checkpoint to go on from" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "no-such", "--data", "."], "no-such"),
        (["train", "organic-3b-unet"], "--data"),
        (["train", "organic-3b-unet", "--data", "/nowhere"], "/nowhere"),
        (["train", "organic-3b-unet", "--data", ".", "--set", "epochs=3"], "epochs"),
        (["train", "organic-3c-resnet", "--data", ".", "--set", "pretrained=/gone.pth"], "/gone.pth"),
        (["export", "/nowhere", "--out", "model"], "/nowhere"),
        (["evaluate", "no-such", "--data", "."], "no-such"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], named: str, photographs: Path, tmp_path: Path) -> None:
    filled = [str(photographs) if argument == "." else argument for argument in arguments]
    where = ["--out", str(tmp_path / "run")] if arguments[0] == "train" else []
    code, said = _here(*filled, *where)
    assert code == 2
    (line,) = said.strip().splitlines()
    assert named in line


@pytest.mark.e2e
def test_recipes_lists_every_shipped_one() -> None:
    from training.config import shipped_recipes
    from training.palette.recipe import palette_recipes

    listed = _run("recipes").stdout
    assert [line.partition(":")[0] for line in listed.splitlines()] == shipped_recipes() + palette_recipes()


def _here(*arguments: object) -> tuple[int, str]:
    """The command in this process: its exit code, and all that it said."""
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def test_palettes_are_learnt_on_one_gpu_and_more_are_refused(photographs: Path, tmp_path: Path) -> None:
    code, said = _here("train", "palette-own", "--data", photographs, "--out", tmp_path / "run", "--devices", "2")
    assert (code, said.count("\n")) == (2, 1)
    assert "--devices 2: recipe palette-own learns on one GPU; leave it out" in said
    assert not (tmp_path / "run").exists()


def test_reproduce_and_quiz_refuse_what_is_not_there_in_one_line(photographs: Path, tmp_path: Path) -> None:
    code, said = _here("reproduce", "cyclegan", "--data", photographs, "--out", tmp_path / "out")
    assert (code, said.count("\n")) == (2, 1)
    assert "no system 'cyclegan'" in said
    assert "patchgan-study" in said
    for option in ("--historic", "--answers", "--unseen"):
        code, said = _here(
            "reproduce", "dilated-gan", "--data", photographs, "--out", tmp_path / "out", option, tmp_path
        )
        assert (code, said.count("\n")) == (2, 1)
        assert f"{option}: only the page of" in said
        assert not (tmp_path / "out").exists()
    code, said = _here("evaluate", "default", "--data", photographs, "--short-side", "7")
    assert (code, said.count("\n")) == (2, 1)
    assert "--short-side 7" in said
    answers = [{"model": None, "said": "real", "right": True}, {"model": "mine", "said": "real", "right": False}]
    (tmp_path / "one.json").write_text(json.dumps({"quiz": "1", "answers": answers}))
    code, said = _here("quiz", tmp_path)
    assert code == 0
    assert "| mine | 1 of 1 (100 %) |" in said
    assert _here("quiz", tmp_path / "out")[0] == 2
