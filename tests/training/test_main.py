from __future__ import annotations

import sys
from pathlib import Path

import pytest

from training.__main__ import main


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_missing_torch_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("training.loop", "training.export"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "m")]) == 2
    assert _lines(capsys) == ["torch is not installed: pip install 'colorize-archive[train]'"]


def test_unknown_recipe_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert main(["train", "no-such", "--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    (line,) = _lines(capsys)
    assert "no-such" in line


def test_missing_pretrained_weights_name_the_remedy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    arguments = ["train", "mobilenet-unet", "--data", str(tmp_path), "--out", str(tmp_path)]
    assert main([*arguments, "--pretrained", str(tmp_path / "gone.pth")]) == 2
    (line,) = _lines(capsys)
    assert "gone.pth" in line
    assert "--pretrained none" in line


def test_unknown_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("yaml")
    assert main(["evaluate", str(tmp_path / "gone"), "--data", str(tmp_path)]) == 2
    (line,) = _lines(capsys)
    assert "gone" in line


def test_interrupt_says_that_the_checkpoint_stands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_yaml: Path
) -> None:
    pytest.importorskip("torch")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.loop.train", interrupted)
    arguments = ["train", str(tiny_yaml), "--data", str(tmp_path), "--out", str(tmp_path)]
    assert main(arguments) == 130
    assert _lines(capsys)[-1] == "stopped"
    (tmp_path / "checkpoint.pt").touch()
    assert main(arguments) == 130
    (line,) = _lines(capsys)
    assert "checkpoint" in line
    assert "--resume" in line


def test_train_export_evaluate(
    photographs_folder: Path, tiny_yaml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    data = ["--data", str(photographs_folder)]
    run, model = str(tmp_path / "run"), str(tmp_path / "model")
    assert main(["train", str(tiny_yaml), *data, "--out", run]) == 0
    assert main(["export", run, "--out", model, "--name", "tiny", *data]) == 0
    capsys.readouterr()
    assert main(["evaluate", model, *data, "--limit", "2", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "| gray (a*=b*=0) |" in printed
    assert "| tiny |" in printed
    assert (tmp_path / "out" / "sheet_tiny.png").is_file()
