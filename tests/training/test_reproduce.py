"""Each system's page, as small as it can be: a few steps on tiny pictures."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

import torch

from training.errors import DataError, RecipeError
from training.evaluation.answers import pooled
from training.reproduce import SYSTEMS, Request, pix2pix_frames, reproduce
from training.reproduce.stitch import stitch

pytestmark = pytest.mark.e2e

MINUTES = 0.001  # the least number of pictures, and an epoch or two


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("training.reproduce.study._LEAST_PICTURES", 16)


def _pictures(page: Path) -> list[Path]:
    sources = re.findall(r"<img src='([^']+)'", page.read_text(encoding="utf-8"))
    return [page.parent / unquote(source) for source in sources]


def _make(system: str, data: Path, out: Path, **more: object) -> str:
    said: list[str] = []
    page = reproduce(system, Request(data, out, MINUTES, **more), said.append)  # type: ignore[arg-type]
    for path in _pictures(page):
        pixels = cv2.imread(str(path))
        assert pixels is not None, path
        assert pixels.std() > 1, path
    return page.read_text(encoding="utf-8")


def test_dilated_gan_compares_its_ablations_and_goes_on(photographs_folder: Path, tmp_path: Path) -> None:
    text = _make("dilated-gan", photographs_folder, tmp_path / "out")
    for row in ("as reported", "RGB", "without dilation", "without skips"):
        assert f"<td>{row}</td>" in text
        assert f"{row}: losses of both networks" in text
    said: list[str] = []
    reproduce("dilated-gan", Request(photographs_folder, tmp_path / "out", MINUTES), said.append)
    assert sum("nothing is left to do" in line for line in said) == 4
    with pytest.raises(RecipeError, match="begun with other settings"):
        reproduce("dilated-gan", Request(photographs_folder, tmp_path / "out", 7.0), said.append)


def test_mobilenet_fusion_packs_the_reports_files(photographs_folder: Path, tmp_path: Path) -> None:
    text = _make("mobilenet-fusion", photographs_folder, tmp_path / "out")
    gray = np.load(tmp_path / "out" / "arrays" / "gray_scale.npy", mmap_mode="r")
    chroma = [np.load(tmp_path / "out" / "arrays" / f"ab{i}.npy", mmap_mode="r") for i in (1, 2, 3)]
    assert gray.shape == (20, 112, 112)
    assert sum(map(len, chroma)) == 20
    assert "Training and validation loss" in text
    run = next((tmp_path / "out" / "runs").glob("MobileNetV2*"))
    assert json.loads((run / "run.json").read_text())["data"]["layout"].startswith("NumPy files")
    assert any("validation" in json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines())


def test_patchgan_study_has_table_1_historic_pictures_and_pooled_answers(
    photographs_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "old" / "below").mkdir(parents=True)
    (tmp_path / "old" / "note.txt").write_text("no picture")
    cv2.imwrite(str(tmp_path / "old" / "tall.png"), cv2.imread(str(photographs_folder / "gray.png"))[:, :20])
    (tmp_path / "answers").mkdir()
    for person, right in (("a", True), ("b", False)):
        answers = [{"model": None, "said": "real", "right": True}, {"model": "3a", "said": "real", "right": False}]
        answers += [{"model": "3a", "said": "generated" if right else "real", "right": right}]
        told = json.dumps({"quiz": "1", "answers": answers})
        (tmp_path / "answers" / f"{person}.json").write_text(told)
    more = {"historic": tmp_path / "old", "answers": tmp_path / "answers"}
    text = _make("patchgan-study", photographs_folder, tmp_path / "out", **more)
    for row, reported in (("3a residual", "0.0071"), ("3b U-Net", "0.0123"), ("3c ResNet-18", "0.0089")):
        assert re.search(f"<td>{row}</td>.*?<td>{reported}</td>", text)
    assert "colourfulness" in text
    assert (tmp_path / "out" / "table" / "quiz.html").is_file()
    assert "<td>3a</td><td>3 of 4 (75 %)</td>" in text
    assert "2 people" in text
    assert "3c ResNet-18 begins with random weights" in text or "Photographs that never had colours" in text


def test_unet_cgan_shows_its_epochs_and_a_second_collection(photographs_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for i in range(12):
        shutil.copy(photographs_folder / f"{i:02}.png", tmp_path / "elsewhere")
    text = _make("unet-cgan", photographs_folder, tmp_path / "out", unseen=tmp_path / "elsewhere")
    assert "12 pictures of 12 photographs (all pictures)" in (tmp_path / "out" / "unseen" / "table.md").read_text()
    assert "Epochs beside the truth, L1" in text
    assert "Epochs beside the truth, L2" in text


def test_frames_are_shown_whole_and_stitched_at_both_strides(
    photographs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A sixteenth of the frames, not an eighth.
    smaller = ("phases.0.crop_px=[128, 256]", "generator_options.depth=5", "discriminator_options.layers=5")
    monkeypatch.setattr(pix2pix_frames, "_SMALL", (*pix2pix_frames._SMALL, *smaller))
    monkeypatch.setattr(pix2pix_frames, "_SHRUNK", 16)
    monkeypatch.setattr(pix2pix_frames, "_SMALL_TILE_PX", 1024)
    text = _make("pix2pix-2048x4096", photographs_folder, tmp_path / "out")
    # As many patches as on a picture of 2048x5120: five and thirty-three whole frames.
    assert "<td>whole frames, 128 x 256 px</td><td>16 px</td><td>5</td>" in text
    assert "<td>whole frames, 128 x 256 px</td><td>2 px</td><td>33</td>" in text
    assert "The worst of them" in text
    run = json.loads((tmp_path / "out" / "runs" / "pix2pix" / "run.json").read_text())
    assert run["recipe"]["discriminator_options"]["norm_ends"] is True


def test_stitching_is_the_plain_mean_of_the_patches() -> None:
    lightness = np.random.default_rng(0).uniform(20, 80, (32, 80)).astype(np.float32)

    def by_place(patch: np.ndarray) -> np.ndarray:
        return np.stack([patch - patch.mean(), patch * 0 + 10]).astype(np.float32)

    made = stitch(lightness, by_place, (32, 64), 8)
    assert made.patches == 3
    total, count = np.zeros((2, 32, 80)), np.zeros(80)
    for start in (0, 8, 16):
        total[:, :, start : start + 64] += by_place(lightness[:, start : start + 64])
        count[start : start + 64] += 1
    from pipeline.colour.lab import rgb_from_lab

    expected = rgb_from_lab(lightness, (total / count).astype(np.float32))
    assert np.abs(made.rgb / 255 - expected).max() < 0.003


def test_answers_to_different_quizzes_are_not_pooled(tmp_path: Path) -> None:
    for name in "ab":
        answers = [{"model": None, "said": "real", "right": True}]
        (tmp_path / f"{name}.json").write_text(json.dumps({"quiz": name, "answers": answers}))
    with pytest.raises(DataError, match="different quizzes"):
        pooled(tmp_path)
    with pytest.raises(DataError, match="no saved results"):
        pooled(tmp_path.parent / "missing")


def test_an_unknown_system_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="unet-cgan"):
        reproduce("cyclegan", Request(tmp_path, tmp_path / "out"))
    assert len(SYSTEMS) == 5
