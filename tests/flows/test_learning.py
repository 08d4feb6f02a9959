"""The commands train, export, evaluate and recipes, as a person types them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from engines.spec import find_model

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
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


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


def test_from_a_folder_of_photographs_to_a_model_and_a_table(photographs: Path, recipe: Path, tmp_path: Path) -> None:
    trained = _run("train", recipe, "--data", photographs, "--out", tmp_path / "run", "--set", "seed=7")
    assert trained.returncode == 0, trained.stderr
    assert "1 left out" in trained.stdout
    card = find_model(str(tmp_path / "run" / "model")).card
    assert (card.name, card.training["seed"], card.training["steps"]) == ("tiny", 7, 4)
    calm = _run("export", tmp_path / "run", "--out", tmp_path / "calm", "--chroma-gain", "0.5", "--note", "calmer")
    assert calm.returncode == 0, calm.stderr
    assert find_model(str(tmp_path / "calm")).card.chroma_scale == card.chroma_scale / 2
    measured = _run("evaluate", tmp_path / "run" / "model", tmp_path / "calm", "--data", photographs,
                    "--out", tmp_path / "table")  # fmt: skip
    assert measured.returncode == 0, measured.stderr
    assert "| tiny |" in measured.stdout
    assert "| calm |" in measured.stdout
    assert (tmp_path / "table" / "quiz.html").is_file()


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
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.read_text().count("\n")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    found = re.search(r"stopped at step (\d+)", said.splitlines()[-1])
    assert found, said
    assert "--resume" in said.splitlines()[-1], said
    return int(found[1]), said


def test_ctrl_c_keeps_the_step_and_resume_needs_no_setting_again(photographs: Path, tmp_path: Path) -> None:
    tiny = "phases=[{steps: 100000, crop_px: 32, batch: 1, content_weight: 1}]"
    where = ["organic-3a-residual", "--data", photographs, "--out", tmp_path / "run"]
    # No checkpoint is due before the stop.
    settings = ["--set", tiny, "--set", "smallest_crop_px=16", "--set", "checkpoint_steps=90000"]
    step, _ = _interrupted_at(["train", *where, *settings], tmp_path / "run" / "losses.jsonl")
    again = _run("train", *where, "--resume", "--set", f"phases.0.steps={step + 3}")
    assert again.returncode == 0, again.stderr
    assert f"continues at step {step} of {step + 3}" in again.stdout
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["phases"][0]["batch"] == 1


def test_resume_where_there_is_nothing_says_so(photographs: Path, recipe: Path, tmp_path: Path) -> None:
    done = _run("train", recipe, "--data", photographs, "--out", tmp_path / "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert f"no checkpoint in {tmp_path / 'run'}: begins at step 0" in done.stdout


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
    done = _run(*filled, *where)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert named in line


def test_recipes_lists_every_shipped_one() -> None:
    from training.config import shipped_recipes

    listed = _run("recipes").stdout
    assert [line.partition(":")[0] for line in listed.splitlines()] == shipped_recipes()
