from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from training.config import load_recipe
from training.data import batches
from training.loop import CHECKPOINT, train


class KilledError(Exception):
    """What stops the run in the resume test."""


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def _state(folder: Path) -> dict:
    return torch.load(folder / CHECKPOINT, weights_only=True)


def test_four_steps_leave_a_checkpoint_and_losses(photographs_folder: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    said: list[str] = []
    train(load_recipe(str(tiny_yaml)), photographs_folder, tmp_path / "run", report=said.append)
    state = _state(tmp_path / "run")
    assert state["step"] == 4
    assert state["recipe"]["name"] == "tiny"
    assert all(torch.isfinite(value).all() for value in state["average"].values())
    assert not list((tmp_path / "run").glob("*.part"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "losses.jsonl").read_text().splitlines()]
    assert {"step", "seconds", "content", "adversarial", "discriminator"} <= set(lines[-1])
    assert "1 left out" in said[0] or "0 left out" in said[0]


def test_resumed_run_has_the_same_weights_to_the_bit(
    photographs_folder: Path, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(tiny_yaml))
    train(recipe, photographs_folder, tmp_path / "whole", report=lambda _: None)

    def killed_after_three(*arguments: object):
        for count, batch in enumerate(batches(*arguments)):  # type: ignore[arg-type]
            if count == 3:
                raise KilledError
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr("training.loop.batches", killed_after_three)
        with pytest.raises(KilledError):
            train(recipe, photographs_folder, tmp_path / "parts", report=lambda _: None)
    assert _state(tmp_path / "parts")["step"] == 2
    train(recipe, photographs_folder, tmp_path / "parts", resume=True, report=lambda _: None)

    whole, parts = _state(tmp_path / "whole"), _state(tmp_path / "parts")
    assert parts["step"] == 4
    for network in ("generator", "average", "discriminator"):
        for name, value in whole[network].items():
            assert torch.equal(value, parts[network][name]), (network, name)
