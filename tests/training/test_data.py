from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("yaml")

from training.config import load_recipe
from training.data import Photograph, batches, find_photographs, is_test, load_pictures, make_batch
from training.errors import DataError


def test_split_by_group_never_leaks_and_is_a_fifth() -> None:
    photographs = [Photograph(Path(f"{g}_{crop}.png"), f"group-{g}") for g in range(3000) for crop in range(3)]
    test = {p.group for p in photographs if is_test(p)}
    training = {p.group for p in photographs if not is_test(p)}
    assert not test & training
    assert len(test) / 3000 == pytest.approx(0.2, abs=0.03)


def test_manifest_above_the_folder_gives_groups(photographs_folder: Path, tmp_path: Path) -> None:
    inner = tmp_path / "train"
    inner.mkdir()
    for name in ("00.png", "01.png"):
        (inner / name).write_bytes((photographs_folder / name).read_bytes())
    (tmp_path / "MANIFEST.tsv").write_text(
        "file\tsource\tlicence\tgroup\ntrain/00.png\tarchive\tCC0\tone\ntrain/01.png\tarchive\tCC0\tone\n"
    )
    assert [(p.group, p.licence, p.source) for p in find_photographs(inner)] == [("one", "CC0", "archive")] * 2


def test_copies_without_manifest_are_one_group(photographs_folder: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes((photographs_folder / "00.png").read_bytes())
    first, second = find_photographs(tmp_path)
    assert first.group == second.group


def test_empty_folder_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures"):
        find_photographs(tmp_path)


def test_gray_and_broken_pictures_are_left_out(photographs_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    pictures, left_out = load_pictures([*find_photographs(photographs_folder), Photograph(broken, "broken")])
    assert len(pictures) == 40
    assert {path.name for path in left_out} == {"gray.png", "broken.png"}


def test_batch_is_a_function_of_seed_and_step(photographs_folder: Path, tiny_yaml: Path) -> None:
    recipe = load_recipe(str(tiny_yaml))
    pictures, _ = load_pictures(find_photographs(photographs_folder))
    made = [make_batch(pictures, recipe, recipe.phase_at(step), step) for step in range(recipe.total_steps)]
    resumed = list(batches(pictures, recipe, 1))
    assert len(resumed) == 3
    for (lightness, chroma), (lightness_again, chroma_again) in zip(made[1:], resumed, strict=True):
        np.testing.assert_array_equal(lightness, lightness_again)
        np.testing.assert_array_equal(chroma, chroma_again)
    assert not np.array_equal(made[0][0], made[1][0])


def test_batch_shapes_and_ranges(photographs_folder: Path, tiny_yaml: Path) -> None:
    recipe = load_recipe(str(tiny_yaml))
    pictures, _ = load_pictures(find_photographs(photographs_folder))
    lightness, chroma = make_batch(pictures, recipe, recipe.phases[1], 3)
    assert (lightness.shape, chroma.shape) == ((2, 1, 32, 32), (2, 2, 32, 32))
    assert lightness.dtype == chroma.dtype == np.float32
    assert max(abs(lightness).max(), abs(chroma).max()) <= 1
