"""Which pictures a folder of photographs, a published data set or NumPy files give, and to which half they go."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import examples

pytest.importorskip("yaml")

from PIL import Image

from pipeline.colour.lab import lab_from_rgb
from training.config import load_recipe
from training.data import Photograph, Subset, find_photographs, is_colour, is_test, open_collection, read_rgb
from training.data.decode import why_unfit
from training.errors import DataError


def _photograph(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    colours = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return cv2.resize(colours, (width, height), interpolation=cv2.INTER_CUBIC)


def _save(path: Path, seed: int, **size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_photograph(seed, **size)).save(path)
    return path


def _bytes(seed: int, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(_photograph(seed, 400, 500)).save(stream, kind, **options)
    return stream.getvalue()


# ---- groups and halves


def test_split_by_group_never_leaks_and_is_a_fifth() -> None:
    photographs = [Photograph(Path(f"{g}_{crop}.png"), f"group-{g}") for g in range(3000) for crop in range(3)]
    test = {p.group for p in photographs if is_test(p)}
    training = {p.group for p in photographs if not is_test(p)}
    assert not test & training
    assert len(test) / 3000 == pytest.approx(0.2, abs=0.03)


@given(groups=st.lists(st.text("abcdef", min_size=1, max_size=2), min_size=12, max_size=20), own=st.booleans())
@examples(25)
def test_no_group_is_in_both_halves(groups: list[str], own: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = ["file\tgroup"]
        for i, group in enumerate(groups):
            half = ("val/" if i % 3 == 0 else "train/") if own else ""
            _save(folder / f"{half}{i}.png", i)
            rows.append(f"{half}{i}.png\t{group}")
        _save(folder / "train" / "kept.png", 99)  # the twelve may all fall into the test half
        rows.append("train/kept.png\tkept")
        assert not is_test(Photograph(folder, "kept"))
        (folder / "MANIFEST.tsv").write_text("\n".join(rows))
        collection = open_collection(folder, 0)
        assert not set(collection.train.groups) & set(collection.test.groups)
        assert len(collection.train) + len(collection.test) + len(collection.left_out) == len(groups) + 1
        assert own or not collection.left_out


def test_clean_licences_leave_out_what_is_for_research_only_or_unknown(tmp_path: Path) -> None:
    rows = ["file\tlicence"]
    for i in range(20):
        _save(tmp_path / f"{i}.png", i)
        rows.append(f"{i}.png\t{('CC0', 'research only', '', 'unknown')[i % 4]}")
    (tmp_path / "MANIFEST.tsv").write_text("\n".join(rows))
    clean = open_collection(tmp_path, subset=Subset(licences="clean"))
    assert len(clean.train) + len(clean.test) == 5
    assert clean.describe()["licences"].keys() == {"CC0"}
    assert sum("research only" in each.reason for each in clean.left_out) == 15
    assert clean.sha256 != open_collection(tmp_path).sha256
    assert Subset.of(load_recipe("generator-free")).licences == "clean"


def test_manifest_above_the_folder_gives_groups_and_licences(tmp_path: Path) -> None:
    for i in range(2):
        _save(tmp_path / "train" / f"{i}.png", i)
    (tmp_path / "MANIFEST.tsv").write_text(
        "file\tsource\tlicence\tgroup\ntrain/0.png\tarchive\tCC0\tone\ntrain/1.png\tarchive\tCC0\tone\n"
    )
    found = [(p.group, p.licence, p.source) for p in find_photographs(tmp_path / "train")]
    assert found == [("one", "CC0", "archive")] * 2
    assert not is_test(Photograph(tmp_path, "one"))
    said = open_collection(tmp_path / "train").describe()
    assert (said["pictures"], said["photographs"], said["left_out"]) == (2, 1, 0)
    assert (said["licences"], said["sources"]) == ({"CC0": 2}, {"archive": 2})


def test_a_manifest_of_something_else_is_refused(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 1)
    (tmp_path / "MANIFEST.tsv").write_text("name\tgroup\na.png\tone\n")
    with pytest.raises(DataError, match=r"MANIFEST\.tsv: .*column 'file'.*mend or remove"):
        open_collection(tmp_path)


def test_copies_without_manifest_are_one_group(tmp_path: Path) -> None:
    first, second = (find_photographs(_save(tmp_path / name / "a.png", 1).parent)[0] for name in ("a", "b"))
    assert first.group == second.group


def test_the_hash_is_of_names_content_and_halves(photographs_folder: Path, tmp_path: Path) -> None:
    before = open_collection(photographs_folder)
    copy = shutil.copytree(photographs_folder, tmp_path / "copy")
    assert open_collection(copy).sha256 == before.sha256
    (copy / "note.txt").write_text("no picture")
    assert open_collection(copy).sha256 == before.sha256
    name = Path(before.train.names[0])
    (copy / name).rename(copy / f"other-{name}")
    assert open_collection(copy).sha256 != before.sha256


# ---- what is left out


def test_unusable_pictures_are_listed_with_the_reason(photographs_folder: Path, tmp_path: Path) -> None:
    for path in sorted(photographs_folder.iterdir())[:12]:
        shutil.copy(path, tmp_path)
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((40, 48, 3), 128, np.uint8))
    _save(tmp_path / "strip.png", 3, height=31)
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        whole = _bytes(5, kind)
        assert why_unfit(whole) is None
        (tmp_path / f"cut-{kind}.{kind.lower()}").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    collection = open_collection(tmp_path)
    reasons = {left.path.name: left.reason for left in collection.left_out}
    assert (reasons.pop("gray.png"), reasons.pop("strip.png")) == ("gray", "smaller than 32 px")
    assert reasons.pop("pipe.png") == reasons.pop("nowhere.jpg")
    unreadable = {"broken.png", "empty.jpg"}
    assert reasons.keys() == unreadable | {f"cut-{k}.{k.lower()}" for k in ("JPEG", "PNG", "TIFF", "WEBP")}
    assert set(reasons.values()) == {"unreadable"}
    assert len(collection.train) + len(collection.test) == 12
    assert collection.describe()["left_out"] == 10


def test_a_large_file_is_judged_by_its_true_size_and_colour() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (33, 3000, 3), dtype=np.uint8)
    noise[..., 0] = 255
    for wanted, rows, pixels in (
        (None, 33, noise),
        ("smaller than 32 px", 31, noise),
        ("gray", 33, noise[..., 1:2].repeat(3, axis=2)),
    ):
        stream = io.BytesIO()
        Image.fromarray(pixels[:rows]).save(stream, "JPEG", quality=100)
        assert len(stream.getvalue()) > 2**16
        assert why_unfit(stream.getvalue()) == wanted


@pytest.mark.parametrize("content", [[], ["note.txt"]])
def test_a_folder_without_pictures_is_refused(tmp_path: Path, content: list[str]) -> None:
    for name in content:
        (tmp_path / name).write_text("words")
    for find in (find_photographs, open_collection):
        with pytest.raises(DataError, match="no pictures"):
            find(tmp_path)


def test_no_folder_and_nothing_fit_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_collection(tmp_path / "missing")
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"none of 1 pictures is left to train on .1 unreadable.*give more") as error:
        open_collection(tmp_path)
    assert "\n" not in str(error.value)


def test_hidden_files_are_passed_over_and_loops_end(tmp_path: Path) -> None:
    for i in range(10):
        _save(tmp_path / "deep" / "er" / f"{i}.png", i)
    _save(tmp_path / ".hidden.png", 20)
    _save(tmp_path / ".thumbnails" / "a.png", 21)
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    (tmp_path / "deep" / "er" / "self").symlink_to(tmp_path / "deep" / "er")
    os.mkfifo(tmp_path / "ab1.npy")  # as the parts of a data set are called
    collection = open_collection(tmp_path)
    assert len(collection.train) + len(collection.test) == 10
    reasons = {left.path.name: left.reason for left in collection.left_out}
    assert (reasons[".hidden.png"], reasons[".thumbnails"]) == ("hidden", "hidden")
    assert "a pipe" in reasons["ab1.npy"]


@pytest.mark.parametrize(
    "marks",
    [
        ["checkpoint.pt"],
        ["run.json", "recipe.yaml"],
        ["table.json", "quiz.html"],
        ["table.json", "sheet.jpg"],
        ["model.onnx", "card.json"],
    ],
)
def test_what_we_wrote_into_the_folder_is_not_trained_on(tmp_path: Path, marks: list[str]) -> None:
    for i in range(10):
        _save(tmp_path / "photos" / f"{i}.png", i)
    before = open_collection(tmp_path)
    for name in ("curves.png", "sheet_default.png", "samples/epoch_001.png", "deeper/er/a.png"):
        _save(tmp_path / "photos" / "out" / name, 50)
    assert len(find_photographs(tmp_path)) == 14  # as yet a folder like others
    for name in marks:
        (tmp_path / "photos" / "out" / name).write_text("{}")
    assert open_collection(tmp_path).sha256 == before.sha256
    assert len(find_photographs(tmp_path)) == 10


def test_a_run_in_the_data_folder_itself_leaves_its_photographs(tmp_path: Path) -> None:
    wanted = [_save(tmp_path / name, i) for i, name in enumerate(("a.png", "b/c.png", "b/samples/d.png"))]
    for name in ("curves.png", "sheet_default.png", "samples/epoch_001.png"):
        _save(tmp_path / name, 50)
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    assert [photograph.path for photograph in find_photographs(tmp_path)] == wanted


# ---- formats


@pytest.mark.parametrize("ending", ["gif", "tga", "pcx", "bmp", "webp", "jp2", "tif", "jpg", "png"])
def test_every_format_reads(tmp_path: Path, ending: str) -> None:
    path = _save(tmp_path / f"a.{ending.upper()}", 4)
    rgb = read_rgb(path)
    assert rgb is not None
    assert rgb.dtype == np.uint8
    loss = {"gif": 20, "jpg": 20, "webp": 20, "jp2": 20}.get(ending, 0)
    np.testing.assert_allclose(rgb.astype(int).mean((0, 1)), _photograph(4).mean((0, 1)), atol=loss / 4)
    assert np.abs(rgb.astype(int) - _photograph(4)).mean() <= loss


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_exif_orientation_turns_the_picture_upright(tmp_path: Path, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the stored picture is to the right
    stored = _photograph(6)
    Image.fromarray(stored).save(tmp_path / f"a.{ending}", exif=exif)
    rgb = read_rgb(tmp_path / f"a.{ending}")
    assert rgb is not None
    assert np.abs(rgb.astype(int) - np.rot90(stored, -1)).mean() < 8


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), _photograph(7).astype(np.uint16)[..., ::-1] * 257)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), _photograph(7))


def test_colour_is_told_from_gray() -> None:
    assert is_colour(_photograph(1))
    assert not is_colour(np.full((40, 40, 3), 90, np.uint8))


# ---- data sets with halves of their own


@pytest.mark.parametrize(
    ("train", "val", "more"),
    [
        (["train2017/1.jpg", "train2017/2.jpg"], ["val2017/3.jpg"], ["test2017/4.jpg", "unlabeled2017/5.jpg"]),
        (["images/train2017/1.jpg"], ["images/val2017/3.jpg"], []),
        (["train/n01/a.JPEG", "train/n02/b.JPEG"], ["val/c.JPEG"], ["test/d.JPEG", "sample.png"]),
        (["ILSVRC/Data/CLS-LOC/train/n01/a.JPEG"], ["ILSVRC/Data/CLS-LOC/val/b.JPEG"], []),
        (["data_256/a/abbey/1.jpg"], ["val_256/2.jpg"], ["test_256/3.jpg"]),
        (["train/abbey/1.jpg"], ["val/abbey/2.jpg"], []),
        (["train/1.jpg"], ["test/2.jpg"], []),
        (["train2017/1.jpg"], ["val2017/2.jpg"], ["train2014/3.jpg", "val2014/4.jpg"]),
    ],
)
def test_a_data_set_keeps_its_own_halves(tmp_path: Path, train: list[str], val: list[str], more: list[str]) -> None:
    for i, name in enumerate([*train, *val, *more]):
        _save(tmp_path / name, i)
    collection = open_collection(tmp_path)
    assert list(collection.train.names) == train
    assert list(collection.test.names) == val
    assert {left.path for left in collection.left_out} == {(tmp_path / name).parent for name in more}
    assert collection.layout.startswith("its own halves")


def test_pictures_outside_both_halves_are_named_by_folder_and_not_read(tmp_path: Path) -> None:
    beside = [f"images/test2017/{i}.jpg" for i in range(12)] + ["images/more/a/1.jpg", "images/more/b/2.jpg"]
    for i, name in enumerate(["images/train2017/1.jpg", "images/val2017/3.jpg"]):
        _save(tmp_path / name, i)
    for name in [*beside, "images/sample.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no picture, as reading it would show")
    collection = open_collection(tmp_path)
    halves = "outside the collection's own halves images/train2017 and images/val2017"
    assert {(left.path.relative_to(tmp_path).as_posix(), left.reason) for left in collection.left_out} == {
        ("images", f"1 picture {halves}"),
        ("images/more", f"2 pictures {halves}"),
        ("images/test2017", f"12 pictures {halves}"),
    }
    assert collection.describe()["left_out"] == 15


def test_folders_that_are_no_halves_are_just_photographs(tmp_path: Path) -> None:
    for i in range(10):
        _save(tmp_path / ("train", "steam", "valley", "station")[i % 4] / f"{i}.png", i)
    _save(tmp_path / "steam" / "train" / "x.png", 30)  # a folder of trains, far from being a half
    _save(tmp_path / "steam" / "test" / "y.png", 31)
    collection = open_collection(tmp_path)
    assert len(collection.train) + len(collection.test) == 12
    assert "80/20" in collection.layout


def test_a_picture_in_both_halves_is_not_trained_on(tmp_path: Path) -> None:
    for name, seed in (("train/a.png", 1), ("train/b.png", 2), ("val/c.png", 2)):
        _save(tmp_path / name, seed)
    collection = open_collection(tmp_path)
    assert (collection.train.names, collection.test.names) == (("train/a.png",), ("val/c.png",))
    assert [(left.path.name, left.reason) for left in collection.left_out] == [
        ("b.png", "the same photograph is in the test half")
    ]


def test_a_copy_under_another_group_is_not_trained_on(tmp_path: Path) -> None:
    for name, seed in (("train/a.png", 1), ("train/b.png", 2), ("val/c.png", 2)):
        _save(tmp_path / name, seed)
    (tmp_path / "MANIFEST.tsv").write_text("file\tgroup\ntrain/a.png\ta\ntrain/b.png\tb\nval/c.png\tc\n")
    collection = open_collection(tmp_path)
    assert (collection.train.names, collection.test.names) == (("train/a.png",), ("val/c.png",))
    assert [left.path.name for left in collection.left_out] == ["b.png"]


# ---- NumPy files


def _write_arrays(folder: Path, parts: tuple[int, ...], lightness: int | None = None, nested: bool = True) -> None:
    count = max(sum(parts), lightness or 0)
    lab = np.stack([cv2.cvtColor(_photograph(i), cv2.COLOR_RGB2Lab) for i in range(count)])
    gray, colour = (folder / "l", folder / "ab") if nested else (folder, folder)
    for place in {gray, colour}:
        place.mkdir(parents=True, exist_ok=True)
    np.save(gray / "gray_scale.npy", lab[: sum(parts) if lightness is None else lightness, ..., 0])
    start = 0
    for number, part in enumerate(parts, start=9):  # ab9, ab10: not the order of their letters
        np.save(colour / f"ab{number}.npy", lab[start : start + part, ..., 1:])
        start += part


@pytest.mark.parametrize("nested", [True, False])
def test_numpy_files_give_the_photographs_lab(tmp_path: Path, nested: bool) -> None:
    _write_arrays(tmp_path, (5, 4, 6), nested=nested)
    collection = open_collection(tmp_path)
    seen = set()
    for half in (collection.train, collection.test):
        for i, name in enumerate(half.names):
            number = int(name.removeprefix("gray_scale.npy[").removesuffix("]"))
            seen.add(number)
            pixels, space = half.read(i)
            assert space == "lab8"
            wanted = lab_from_rgb(_photograph(number).astype(np.float32) / 255)
            found = pixels.astype(np.float32).transpose(2, 0, 1) * [[[100 / 255]], [[1]], [[1]]]
            found[1:] -= 128
            assert np.abs(found - wanted).mean() < 0.5  # half a level of rounding, and OpenCV's slightly other white
            assert np.abs(found - wanted).max() < 2
    assert seen == set(range(15))
    assert not set(collection.train.groups) & set(collection.test.groups)


def test_numpy_files_stay_on_the_disk(tmp_path: Path) -> None:
    _write_arrays(tmp_path, (12,))
    collection = open_collection(tmp_path)
    assert len(pickle.dumps(collection.train)) < 5000
    assert pickle.loads(pickle.dumps(collection.train)).read(0).pixels.shape == (40, 48, 3)


@pytest.mark.parametrize(("parts", "lightness"), [((5, 4), 10), ((5, 4), 8)])
def test_counts_that_differ_are_refused(tmp_path: Path, parts: tuple[int, ...], lightness: int) -> None:
    _write_arrays(tmp_path, parts, lightness)
    said = rf"{lightness} samples, but 2 ab\*\.npy have 5 \+ 4 = 9.*give all parts"
    with pytest.raises(DataError, match=said) as error:
        open_collection(tmp_path)
    assert "\n" not in str(error.value)


def test_numpy_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    _write_arrays(tmp_path, (4,))
    chroma = tmp_path / "ab" / "ab9.npy"
    whole = chroma.read_bytes()
    chroma.unlink()
    with pytest.raises(DataError, match=r"1 gray_scale\.npy and 0 ab\*\.npy; give"):
        open_collection(tmp_path)
    chroma.write_bytes(whole[:500])
    with pytest.raises(DataError, match=r"ab9\.npy: not a whole NumPy file .*fetch it again"):
        open_collection(tmp_path)
    np.save(tmp_path / "ab" / "ab9.npy", np.zeros((4, 20, 48, 2), np.float32))
    with pytest.raises(DataError, match=r"float32 \(4, 20, 48, 2\), not uint8 \(N, 40, 48, 2\)"):
        open_collection(tmp_path)


def test_gray_samples_of_numpy_files_are_left_out(tmp_path: Path) -> None:
    _write_arrays(tmp_path, (12,))
    path = tmp_path / "ab" / "ab9.npy"
    chroma = np.load(path)
    chroma[3] = 128
    np.save(path, chroma)
    (left,) = open_collection(tmp_path).left_out
    assert (left.path.name, left.reason) == ("gray_scale.npy[3]", "gray")


# ---- memory


def test_decoded_pictures_are_kept_up_to_the_limit(photographs_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(photographs_folder, tmp_path / "copy")
    room_for_ten = 10 * 48 * 40 * 3 * 4 // 3
    pictures = open_collection(tmp_path / "copy", room_for_ten).train
    before = [pictures.read(i).pixels.copy() for i in range(len(pictures))]
    for path in pictures.paths:
        path.unlink()
    for i in range(8):
        np.testing.assert_array_equal(pictures.read(i).pixels, before[i])
    for i in range(13, len(before)):
        with pytest.raises(DataError, match="cannot; put it back and resume"):
            pictures.read(i)
    with pytest.raises(ValueError, match="read-only"):
        pictures.read(0).pixels[0] = 0


def test_a_recipe_takes_a_part_of_a_collection(tmp_path: Path) -> None:
    for place, count in {"aquarium/indoor": 30, "beach": 30}.items():
        for i in range(count):
            _save(tmp_path / place / f"{i:03}.png", 100 * len(place) + i)
    subset = Subset(pictures=20, folders=("aqua*",), seed=1)
    collection = open_collection(tmp_path, 0, subset)
    names = {*collection.train.names, *collection.test.names}
    assert len(names) == 20
    assert all(name.startswith("aquarium/indoor/") for name in names)
    assert collection.describe()["subset"] == {"pictures": 20, "folders": ["aqua*"], "seed": 1, "drawn_from": 60}
    again = open_collection(tmp_path, 0, subset)
    assert again.sha256 == collection.sha256
    whole = open_collection(tmp_path, 0)
    assert set(collection.test.names) <= set(whole.test.names)  # a picture's half does not depend on what is drawn
    other = open_collection(tmp_path, 0, Subset(pictures=20, folders=("aqua*",), seed=2))
    assert {*other.train.names, *other.test.names} != names
    with pytest.raises(DataError, match=r"none of its 60 pictures.*aquarium, beach, indoor"):
        open_collection(tmp_path, 0, Subset(folders=("forest",)))


def test_a_part_of_a_collection_with_own_halves_is_80_to_20(tmp_path: Path) -> None:
    for place, count in {"train2017": 30, "val2017": 30}.items():
        for i in range(count):
            _save(tmp_path / place / f"{i:03}.png", 100 * len(place) + i)
    collection = open_collection(tmp_path, 0, Subset(pictures=20))
    assert (len(collection.train), len(collection.test)) == (16, 4)


@pytest.mark.parametrize("gray_first", [True, False])
def test_side_by_side_pairs_are_read_as_their_colour_half(tmp_path: Path, gray_first: bool) -> None:
    colour = cv2.resize(_photograph(3), (96, 64), interpolation=cv2.INTER_CUBIC)
    gray = np.repeat(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    halves = [gray, colour] if gray_first else [colour, gray]
    Image.fromarray(np.concatenate(halves, axis=1)).save(tmp_path / "pair.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "pair.png"), colour)
    other = cv2.resize(_photograph(4), (96, 64), interpolation=cv2.INTER_CUBIC)
    beside = np.concatenate([gray, other], axis=1)  # gray beside something else is no pair
    Image.fromarray(beside).save(tmp_path / "other.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "other.png"), beside)
