from __future__ import annotations

import copy
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

import torch
from lightning_fabric import Fabric

from pipeline.colour.lab import rgb_from_lab
from tests.patience import wait_until
from training import checkpoint
from training.config import Film, Recipe, load_recipe
from training.curves import panels
from training.data import batches, make_batch, open_collection
from training.errors import RecipeError, TrainingError
from training.export import load_average
from training.journal import Journal
from training.loop import train
from training.trainer import Trainer

NETWORKS = ("generator", "average", "discriminator")


class KilledError(Exception):
    """What stops the run in the resume tests."""


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def _train(recipe: Recipe, data: Path, out: Path, **more: object) -> list[str]:
    said: list[str] = []
    train(recipe, data, out, report=said.append, **more)  # type: ignore[arg-type]
    return said


def _lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def _assert_same_weights(one: Path, other: Path) -> None:
    first, second = checkpoint.load(one), checkpoint.load(other)
    assert first["step"] == second["step"]
    for network in NETWORKS:
        for name, value in first[network].items():
            assert torch.equal(value, second[network][name]), (network, name)


def test_a_run_leaves_all_that_tells_how_it_was_made(photographs_folder: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    said = _train(load_recipe(str(tiny_yaml)), photographs_folder, tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "checkpoint.pt", "curves.png", "losses.csv", "losses.jsonl", "recipe.yaml", "run.json", "samples",
        "tensorboard",
    }  # fmt: skip
    state = checkpoint.load(tmp_path / "run")
    assert state["step"] == 4
    assert all(torch.isfinite(value).all() for value in state["average"].values())
    last = _lines(tmp_path / "run")[-1]
    assert {"step", "epoch", "seconds", "content", "adversarial", "discriminator", "validation"} <= set(last)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["seed"] == 0
    assert len(run["data"]["sha256"]) == 64
    assert [Path(left["file"]).name for left in run["left_out"]] == ["gray.png"]
    assert Recipe(**run["recipe"]) == load_recipe(str(tiny_yaml)) == load_recipe(str(tmp_path / "run" / "recipe.yaml"))
    assert "1 left out" in said[0]
    assert "random weights" in said[1]
    grid = cv2.imread(str(next((tmp_path / "run" / "samples").glob("epoch_*.png"))))
    side = 64  # of the last phase
    gray, truth = grid[4 : 4 + side, 4 : 4 + side], grid[4 : 4 + side, 4 + 2 * (side + 4) : 2 * (side + 4) + 4 + side]
    assert np.ptp(gray, axis=-1).max() == 0
    assert np.ptp(truth.astype(int), axis=-1).max() > 20


def test_tensorboard_has_the_curves_the_reports_plot(photographs_folder: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _train(load_recipe(str(tiny_yaml)), photographs_folder, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    wanted = {"total", "content", "adversarial", "discriminator", "validation", "learning_rate"}
    assert wanted <= set(events.Tags()["scalars"])
    assert events.Scalars("content")[-1].step == 4
    assert events.Tags()["images"]


def test_two_epochs_equal_one_a_kill_and_a_resume(
    photographs_folder: Path, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ("phases.0.epochs=1", "phases.1.epochs=1", "film.blur_px=1")
    recipe = load_recipe(str(tiny_yaml), (*changes, "phases.0.batch=16", "phases.1.batch=16"))
    _train(recipe, photographs_folder, tmp_path / "whole")

    def killed_in_the_second_epoch(*arguments: object) -> Iterator[object]:
        for count, batch in enumerate(batches(*arguments)):  # type: ignore[arg-type]
            if count == 3:
                raise KilledError
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr("training.loop.batches", killed_in_the_second_epoch)
        with pytest.raises(KilledError):
            _train(recipe, photographs_folder, tmp_path / "parts")
    assert checkpoint.load(tmp_path / "parts")["step"] == 2
    _train(recipe, photographs_folder, tmp_path / "parts", resume=True)
    _assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    whole, parts = _lines(tmp_path / "whole"), _lines(tmp_path / "parts")
    assert [line["step"] for line in parts] == [line["step"] for line in whole]
    assert whole[-1]["validation"] == parts[-1]["validation"]


@pytest.mark.e2e
def test_a_process_killed_at_any_moment_goes_on(photographs_folder: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(tiny_yaml), ("phases.0.steps=60", "checkpoint_steps=5"))
    (tmp_path / "long.yaml").write_text(json.dumps(recipe.model_dump(mode="json")))
    program = (
        "import sys, torch; torch.set_num_threads(1); from pathlib import Path; "
        "from training.config import load_recipe; from training.loop import train; "
        "out = Path(sys.argv[3]); resume = (out / 'checkpoint.pt').is_file(); "
        "train(load_recipe(sys.argv[1]), Path(sys.argv[2]), out, resume=resume)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "long.yaml"), str(photographs_folder)]
    process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
    wait_until((tmp_path / "killed" / "checkpoint.pt").is_file, every_seconds=0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < checkpoint.load(tmp_path / "killed")["step"] < 62
    for folder in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / folder)], check=True, stdout=subprocess.DEVNULL)
    _assert_same_weights(tmp_path / "whole", tmp_path / "killed")


def test_a_run_is_never_overwritten_nor_continued_as_another(
    photographs_folder: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(str(tiny_yaml))
    _train(recipe, photographs_folder, tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(RecipeError, match="--resume"):
        _train(recipe, photographs_folder, tmp_path / "run")
    other = load_recipe(str(tiny_yaml), ("learning_rate=0.5",))
    with pytest.raises(RecipeError, match=r"learning_rate 0\.0002.*0\.5"):
        _train(other, photographs_folder, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
    sharper = load_recipe(str(tiny_yaml), ("phases.1.content_weight=1",))
    with pytest.raises(RecipeError, match=r"phases\.1\.content_weight 100\.0.*1\.0"):
        _train(sharper, photographs_folder, tmp_path / "run", resume=True)
    (tmp_path / "fewer").mkdir()
    for name in [f"{i:02}.png" for i in range(30)]:
        shutil.copy(photographs_folder / name, tmp_path / "fewer" / name)
    with pytest.raises(RecipeError, match="data_sha256"):
        _train(recipe, tmp_path / "fewer", tmp_path / "run", resume=True)
    assert "nothing is left to do" in _train(recipe, photographs_folder, tmp_path / "run", resume=True)[-1]
    longer = load_recipe(str(tiny_yaml), ("phases.1.steps=4",))
    _train(longer, photographs_folder, tmp_path / "run", resume=True)
    assert checkpoint.load(tmp_path / "run")["step"] == 6


def test_a_run_that_began_before_a_key_was_there_goes_on(
    photographs_folder: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    _train(load_recipe(str(tiny_yaml)), photographs_folder, tmp_path / "run")
    state = checkpoint.load(tmp_path / "run")
    for key in ("pictures", "folders", "pictures_seed", "blocks"):
        del state["recipe"][key]
    checkpoint.save(tmp_path / "run", state)
    longer = load_recipe(str(tiny_yaml), ("phases.1.steps=3",))
    _train(longer, photographs_folder, tmp_path / "run", resume=True)
    assert checkpoint.load(tmp_path / "run")["step"] == 5
    with pytest.raises(RecipeError, match="pictures"):
        _train(load_recipe(str(tiny_yaml), ("pictures=30",)), photographs_folder, tmp_path / "run", resume=True)


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(
    photographs_folder: Path, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(*arguments: object) -> Iterator[object]:
        for count, batch in enumerate(batches(*arguments)):  # type: ignore[arg-type]
            if count == 3:
                torch.as_tensor(batch.colour)[0, 0, 0, 0] = float("nan")
            yield batch

    monkeypatch.setattr("training.loop.batches", poisoned)
    with pytest.raises(TrainingError, match=r"not finite.*checkpoint in .* stands"):
        _train(load_recipe(str(tiny_yaml)), photographs_folder, tmp_path / "run")
    state = checkpoint.load(tmp_path / "run")
    assert state["step"] == 2
    assert all(torch.isfinite(value).all() for value in state["generator"].values())


def test_weights_that_are_not_finite_never_replace_good_ones(
    photographs_folder: Path, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step's losses are good, and its update is not."""
    step_of = Trainer.train_step

    def overflowing(trainer: Trainer, *arguments: object) -> dict[str, torch.Tensor]:
        losses = step_of(trainer, *arguments)  # type: ignore[arg-type]
        if trainer.step == 4:
            next(trainer.generator.parameters()).data.fill_(float("inf"))
        return losses

    monkeypatch.setattr(Trainer, "train_step", overflowing)
    with pytest.raises(TrainingError, match="weights not finite"):
        _train(load_recipe(str(tiny_yaml)), photographs_folder, tmp_path / "run")
    assert checkpoint.load(tmp_path / "run")["step"] == 2


def test_a_disk_that_fills_beside_the_checkpoint_says_that_it_stands(
    photographs_folder: Path, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "samples/epoch_001.png")

    monkeypatch.setattr("training.loop.write_grid", full)
    with pytest.raises(TrainingError, match=r"epoch_001.png: No space left.*checkpoint in .* stands.*--resume"):
        _train(load_recipe(str(tiny_yaml)), photographs_folder, tmp_path / "run")
    assert checkpoint.load(tmp_path / "run")["step"] == 2


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"step": 1, "recipe": {}, "x": torch.zeros(4)})
    before = (tmp_path / checkpoint.CHECKPOINT).read_bytes()
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    (tmp_path / f"{checkpoint.CHECKPOINT}.part").symlink_to(full)
    with pytest.raises(TrainingError, match=r"step 2.*No space left|step 2.*cannot be written"):
        checkpoint.save(tmp_path, {"step": 2, "recipe": {}, "x": torch.zeros(1 << 20)})
    assert (tmp_path / checkpoint.CHECKPOINT).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.CHECKPOINT]


def test_collapse_to_gray_is_said(tiny_yaml: Path, tmp_path: Path) -> None:
    """Colours of one lightness: it tells nothing of them, so all that a content loss can learn is gray."""
    rng = np.random.default_rng(2)
    (tmp_path / "flat").mkdir()
    for i in range(40):
        chroma = np.stack([cv2.resize(rng.uniform(-40, 40, (2, 2)).astype(np.float32), (48, 48)) for _ in "ab"])
        rgb = rgb_from_lab(np.full((48, 48), 60, np.float32), chroma)
        assert cv2.imwrite(str(tmp_path / "flat" / f"{i}.png"), np.rint(rgb[..., ::-1] * 255))
    changes = ("content_loss=mse", "learning_rate=0.003", "phases.0.steps=120", "phases.0.batch=8", "film.grain=0")
    said = _train(load_recipe(str(tiny_yaml), (*changes, "phases.1.steps=1")), tmp_path / "flat", tmp_path / "run")
    assert any("collapsing to gray" in line and "vivid_weight" in line for line in said)


@pytest.mark.parametrize(
    ("chroma", "warnings"),
    [
        ([0.05, 0.6, 0.9, 0.10, 0.06], [4]),
        ([0.05, 0.1, 0.12], []),
        ([0.6, 0.1, 0.5, 0.1], [2, 4]),
        ([0.05] * 11, [10]),
    ],
)
def test_the_watch_warns_once_for_each_fall(chroma: list[float], warnings: list[int], tmp_path: Path) -> None:
    said: list[str] = []
    with Journal(tmp_path, 0, said.append) as journal:
        for i, value in enumerate(chroma, 1):
            journal.watch(i * 50, {"chroma": value})
    assert [int(line.split()[2].rstrip(":")) // 50 for line in said] == warnings


def test_a_run_inside_its_own_pictures_is_refused(photographs_folder: Path, tiny_yaml: Path) -> None:
    with pytest.raises(RecipeError, match="taken for photographs"):
        _train(load_recipe(str(tiny_yaml)), photographs_folder, photographs_folder / "runs" / "tiny")
    assert not (photographs_folder / "runs").exists()


def test_a_recipe_of_the_users_own_is_not_replaced(photographs_folder: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "recipe.yaml").write_text("# mine\n" + tiny_yaml.read_text())
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        _train(load_recipe(str(tmp_path / "own" / "recipe.yaml")), photographs_folder, tmp_path / "own")
    assert (tmp_path / "own" / "recipe.yaml").read_text().startswith("# mine")


def test_joint_grades_both_against_the_other_as_it_was(tiny_yaml: Path) -> None:
    """Hand-made: a joint step is the generator's against the old discriminator, and the other way round."""
    recipe = load_recipe(str(tiny_yaml), ("update=joint", "discriminator=pixel", "film.grain=0"))
    phase = recipe.phases[1].model_copy(update={"batch": 2})
    lightness, colour = torch.rand(2, 1, 64, 64) * 2 - 1, torch.rand(2, 2, 64, 64) * 2 - 1
    losses = {}
    for update in ("joint", "alternating"):
        trainer = Trainer(recipe.model_copy(update={"update": update}), Fabric(accelerator="cpu"))
        before = copy.deepcopy(trainer.discriminator)
        fake = copy.deepcopy(trainer.generator)(lightness)
        expected = torch.nn.functional.softplus(-before(torch.cat([lightness, fake], 1))).mean().item()
        losses[update] = trainer.train_step(lightness, colour, phase, 1000.0)["adversarial"].item()
        if update == "joint":
            assert losses["joint"] == pytest.approx(expected, rel=1e-4)
    assert losses["alternating"] != pytest.approx(losses["joint"], rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        ("update=joint",),
        ("colour=rgb", "input_channels=3", "discriminator=patchgan"),
        ("adversarial_loss=hinge", "discriminator=pixel"),
        ("adversarial_loss=least-squares", "label_smoothing=0.1", "discriminator=classifier", "crop=whole"),
        ("content_loss=mse", "ema_decay=0", "optimizer=adamw", "phases.1.crop_px=[32, 64]", "discriminator=pixel"),
    ],
)
def test_every_switch_trains(
    changes: tuple[str, ...], photographs_folder: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    _train(load_recipe(str(tiny_yaml), changes), photographs_folder, tmp_path / "run")
    state = checkpoint.load(tmp_path / "run")
    assert state["step"] == 4
    assert all(torch.isfinite(value).all() for value in state["average"].values())


@pytest.mark.parametrize(
    "changes",
    [
        ("adversarial_loss=hinge",),
        ("adversarial_loss=least-squares",),
        ("update=alternating",),
        ("update=blocks", "blocks.discriminator=2", "blocks.unit=steps"),
        ("colour=rgb",),
    ],
)
def test_the_open_questions_of_the_third_report_train(
    changes: tuple[str, ...], photographs_folder: Path, tmp_path: Path
) -> None:
    small = ("generator_options.width=4", "generator_options.depth=4", "phases.0.crop_px=32", "phases.0.batch=4")
    recipe = load_recipe("organic-3b-unet", (*small, "phases.0.steps=4", "discriminator_options.width=4", *changes))
    assert recipe.update == "joint" or "update" in changes[0]
    start = Trainer(recipe, Fabric(accelerator="cpu")).state()
    _train(recipe, photographs_folder, tmp_path / "run")
    state = checkpoint.load(tmp_path / "run")
    for network in ("generator", "discriminator"):
        assert all(torch.isfinite(value).all() for value in state[network].values())
        name = next(iter(state[network]))
        assert not torch.equal(state[network][name], start[network][name])


def test_in_blocks_only_one_network_learns_at_a_time(tiny_yaml: Path) -> None:
    changes = ("update=blocks", "blocks.unit=steps", "blocks.discriminator=1", "blocks.generator=2")
    recipe = load_recipe(str(tiny_yaml), (*changes, "discriminator=pixel", "phases.1.steps=7"))
    schedule = recipe.schedule(10)
    turns = [schedule.learns_at(step) for step in range(9)]
    assert turns == ["both", "both", *["discriminator", "generator", "generator"] * 2, "discriminator"]
    trainer = Trainer(recipe, Fabric(accelerator="cpu"))
    lightness, colour = torch.rand(2, 1, 64, 64) * 2 - 1, torch.rand(2, 2, 64, 64) * 2 - 1
    for learns, still in (("discriminator", "generator"), ("generator", "discriminator")):
        before = {name: [p.clone() for p in getattr(trainer, name).parameters()] for name in (learns, still)}
        trainer.train_step(lightness, colour, recipe.phases[1], 1.0, learns)
        moved = {
            name: any(
                not torch.equal(a, b) for a, b in zip(before[name], getattr(trainer, name).parameters(), strict=True)
            )
            for name in before
        }
        assert moved == {learns: True, still: False}
    by_epochs = load_recipe(str(tiny_yaml), ("update=blocks", "phases.1.steps=20")).schedule(8)
    assert [by_epochs.learns_at(step) for step in range(2, 12)] == (["discriminator"] * 4 + ["generator"] * 4) * 1 + [
        "discriminator"
    ] * 2


def test_samples_and_validation_have_the_size_of_the_frames(
    photographs_folder: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    changes = ("crop=whole", "phases.1.crop_px=[32, 64]", "discriminator=patchgan", "content_loss=mse")
    recipe = load_recipe(str(tiny_yaml), (*changes, "discriminator_options.norm_ends=true", "ema_decay=0"))
    _train(recipe, photographs_folder, tmp_path / "run")
    (path,) = sorted((tmp_path / "run" / "samples").glob("*.png"))
    height, width = cv2.imread(str(path)).shape[:2]
    assert ((height - 4) % 36, width) == (0, 3 * 68 + 4)
    collection = open_collection(photographs_folder)
    phase = recipe.phases[1].model_copy(update={"batch": len(collection.test)})
    plain = recipe.model_copy(update={"film": Film(), "flip": False})
    held_out = make_batch(collection.test, plain, phase, 0)
    network, _, _ = load_average(tmp_path / "run")
    with torch.no_grad():
        expected = np.square(network(torch.as_tensor(held_out.lightness)).numpy() - held_out.colour).mean()
    assert _lines(tmp_path / "run")[-1]["validation"] == pytest.approx(expected, rel=1e-3)


def test_curves_show_what_the_reports_plot(photographs_folder: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    _train(load_recipe(str(tiny_yaml), ("discriminator=pixel",)), photographs_folder, tmp_path / "run")
    drawn = panels(load_recipe(str(tiny_yaml)))
    shown = {curve for panel in drawn for curve in panel.curves}
    assert {"total", "adversarial", "discriminator", "content", "validation"} <= shown
    assert all(panel.title and panel.unit for panel in drawn)
    height, width = cv2.imread(str(tmp_path / "run" / "curves.png")).shape[:2]
    assert width > 4.5 * height  # four panels side by side


def test_training_brings_the_loss_down(photographs_folder: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    changes = ("phases.0.steps=150", "phases.1.steps=1", "phases.0.batch=8", "learning_rate=0.003", "film.grain=0")
    _train(load_recipe(str(tiny_yaml), changes), photographs_folder, tmp_path / "run")
    content = [line["content"] for line in _lines(tmp_path / "run") if "discriminator" not in line]
    assert np.mean(content[-3:]) < 0.9 * content[0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("generator=gpt", ["gpt"]),
        ("generator_options.widht=3", ["widht"]),
        ("phases.0.crop_px=33", ["33", "multiple of 8"]),
        ("pretrained=weights.pth", ["unet", "no encoder"]),
        ("generator=_decoder", ["_decoder"]),
        ("generator_options.depth=-1", ["recipe tiny"]),
    ],
)
def test_a_recipe_that_cannot_be_built_is_one_line(
    change: str, named: list[str], photographs_folder: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        _train(load_recipe(str(tiny_yaml), (change,)), photographs_folder, tmp_path / "run")
    assert all(part in str(caught.value) for part in named)
    assert "\n" not in str(caught.value)
