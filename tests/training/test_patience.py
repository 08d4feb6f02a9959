"""Early stop: training ends after evaluations that were no better, keeps the best weights, and says so."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

import torch

from training import checkpoint, loop
from training.config import load_recipe
from training.errors import RecipeError
from training.export import export, load_average
from training.loop import train
from training.patience import Patience

# 35 training pictures and 18 in a batch: an epoch is two steps, and the last phase has six of them.
CHANGES = ("phases.0.epochs=1", "phases.1.epochs=6", "phases.0.batch=18", "phases.1.batch=18", "phases.1.crop_px=32")


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.integers(1, 5))
def test_it_is_over_when_the_best_is_so_many_evaluations_ago(losses: list[float], evaluations: int) -> None:
    patience = Patience(evaluations)
    for count, loss in enumerate(losses, 1):
        patience.judge(count, loss)
        best = min(losses[:count])
        assert (patience.best, patience.best_step) == (best, losses.index(best) + 1)
        assert patience.is_over == (count - patience.best_step >= evaluations)
        assert Patience.of(evaluations, patience.state()) == patience


def test_a_phase_that_is_added_is_judged_by_itself() -> None:
    patience = Patience.of(2, None, 1)
    for step, loss in enumerate((0.05, 0.06, 0.06), 1):
        patience.judge(step, loss)
    assert patience.is_over
    assert Patience.of(2, patience.state(), 1).is_over
    longer = Patience.of(2, patience.state(), 2)
    assert not longer.is_over
    assert longer.judge(4, 0.07)
    assert Patience.of(2, longer.state(), 2).best == 0.07


def test_without_a_number_it_is_never_over() -> None:
    patience = Patience(None)
    for step in range(100):
        patience.judge(step, 1.0)
    assert not patience.is_over


@pytest.fixture
def rising(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations that are best at the second epoch of the last phase."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    measured = loop._validate

    def judged(trainer: loop.Trainer, held_out: loop.Batch) -> dict[str, float]:
        values = measured(trainer, held_out)
        return values | {"validation": 1.0 + abs(trainer.step - 6) / 100}

    monkeypatch.setattr(loop, "_validate", judged)


def _train(tiny: Path, data: Path, out: Path, *changes: str, resume: bool = False) -> str:
    said: list[str] = []
    train(load_recipe(str(tiny), (*CHANGES, *changes)), data, out, resume, report=said.append)
    return "\n".join(said)


@pytest.mark.usefixtures("rising")
def test_a_run_stops_early_and_its_model_is_the_best(photographs_folder: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = _train(tiny_yaml, photographs_folder, run, "patience=2")
    assert "stops early at step 10 of 14: no evaluation of the last 2 was better than 1, at step 6" in said
    assert checkpoint.load(run)["step"] == 10
    best = checkpoint.load(run, name=checkpoint.BEST)
    assert best["step"] == 6
    generator, _, _ = load_average(run)
    assert all(torch.equal(value, best["average"][name]) for name, value in generator.state_dict().items())
    told = export(run, tmp_path / "model", "tiny").card.training
    assert told["steps"] == 6
    assert told["early_stop"] == {"patience": 2, "best_step": 6, "best_validation": 1.0, "stopped_at_step": 10}
    with (run / "losses.csv").open(newline="") as stream:
        judged = [(row["step"], row["best_validation"]) for row in csv.DictReader(stream) if row["best_validation"]]
    assert judged == [("4", "1.02"), ("6", "1.0"), ("8", "1.0"), ("10", "1.0")]


@pytest.mark.usefixtures("rising")
def test_a_run_that_stopped_goes_on_only_with_more_patience(
    photographs_folder: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    _train(tiny_yaml, photographs_folder, run, "patience=2")
    again = _train(tiny_yaml, photographs_folder, run, "patience=2", resume=True)
    assert "nothing is left to do, it stopped early" in again
    assert checkpoint.load(run)["step"] == 10
    longer = _train(tiny_yaml, photographs_folder, run, "patience=3", resume=True)
    assert "stops early at step 12 of 14: no evaluation of the last 3" in longer
    assert checkpoint.load(run)["step"] == 12


def test_patience_without_pictures_to_judge_by_is_refused(tiny_yaml: Path, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    data = tmp_path / "one"
    data.mkdir()
    # Which pictures are held out goes by their names; alone, this one is not.
    rgb = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    for name in "abcdefgh":
        cv2.imwrite(str(data / f"{name}.png"), rgb)
        if not _held_out(data):
            break
        (data / f"{name}.png").unlink()
    with pytest.raises(RecipeError, match="patience 2: nothing is held out"):
        _train(tiny_yaml, data, tmp_path / "run", "patience=2")
    assert not (tmp_path / "run").exists()


def _held_out(data: Path) -> int:
    from training.data import open_collection
    from training.errors import DataError

    try:
        return len(open_collection(data).test)
    except DataError:  # it is the only one
        return 1


def test_what_a_run_says_of_its_end_is_json(tmp_path: Path) -> None:
    assert json.loads(json.dumps(Patience(3).record(5))) == {
        "patience": 3,
        "best_step": 0,
        "best_validation": None,
        "stopped_at_step": None,
    }
