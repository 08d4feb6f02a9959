"""Engine files: found again, built once, and built again for a reason that is said. The backend is that of the docs."""

import dataclasses
import json
import logging
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from engines import registry
from engines.engine_files import EngineKey, build_engine, engine_files, read_engine, remove_engines
from engines.errors import EngineError, ModelError
from engines.registry import backend_module, backend_names, open_engine
from engines.select import choose
from engines.spec import EngineSpec, find_model
from tests.models import make_model
from tests.patience import PATIENCE_SECONDS

PAGE = Path(__file__).parents[2] / "docs" / "engines.md"


def example() -> str:
    """The backend that docs/engines.md shows."""
    (code,) = re.findall(r"<!-- backend -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return code


def install(folder: Path, code: str) -> Path:
    """As pip leaves a package with an entry point."""
    info = folder / "my_backend-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "my_backend.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[colorize_archive.backends]\nmine = my_backend\n")
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COLORIZE_ARCHIVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mine(tmp_path, monkeypatch, cache):
    """The documented backend, installed."""
    monkeypatch.syspath_prepend(install(tmp_path / "site", example()))
    registry._plugins.cache_clear()
    yield backend_module("mine")
    sys.modules.pop("my_backend", None)
    monkeypatch.undo()
    registry._plugins.cache_clear()


@pytest.fixture
def model(tmp_path):
    return find_model(str(make_model(tmp_path / "tiny")))


def spec_of(model, **other):
    return dataclasses.replace(EngineSpec("mine", str(model.folder), (32, 32), 2), **other)


def lightness(seed=0):
    return np.random.default_rng(seed).uniform(0, 100, (2, 1, 32, 32)).astype(np.float32)


def test_the_backend_of_the_readme_is_short_and_predicts(mine, model):
    assert len([line for line in example().splitlines() if line.strip()]) <= 30
    assert "mine" in backend_names()
    with open_engine(spec_of(model)) as one, open_engine(spec_of(model, backend="onnxruntime")) as other:
        np.testing.assert_array_equal(one.predict(lightness()), other.predict(lightness()))
    choice, _ = choose("mine", str(model.folder))
    assert (choice.backend, choice.precision) == ("mine", "fp32")


@pytest.mark.e2e
def test_a_run_takes_a_backend_from_outside(mine, model, tmp_path, monkeypatch):
    import cv2

    cv2.imwrite(str(tmp_path / "scan.png"), np.random.default_rng(0).integers(0, 255, (96, 96), np.uint8))
    words = ["run", tmp_path / "scan.png", "-o", tmp_path / "out", "--tile", "32", "--model", model.folder]
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PREFECT_HOME": str(tmp_path / "prefect")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ran = subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, words), "--engine", "mine"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "engine mine" in ran.stderr
    assert json.loads((tmp_path / "out" / "scan.color.json").read_text())["settings"]["engine"] == "mine"
    assert len(engine_files()) == 2  # of tiles, and of the palette


def test_an_engine_is_built_once_and_found_again(mine, model, cache):
    first = build_engine(mine, model, spec_of(model))
    again = build_engine(mine, model, spec_of(model))
    assert (first.is_new, again.is_new) == (True, False)
    assert again.compiled == first.compiled
    assert engine_files() == [first.path]
    found = read_engine(first.path)
    assert found.key == EngineKey.of(mine, model, spec_of(model))
    assert not [path for path in cache.rglob("*") if path.suffix == ".part"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        lambda data: b"\n",
    ],
)
def test_a_damaged_file_is_built_again_and_says_so(mine, model, damage, caplog):
    made = build_engine(mine, model, spec_of(model))
    whole = made.path.read_bytes()
    made.path.write_bytes(damage(whole))
    with caplog.at_level(logging.INFO, "colorize_archive.engines"):
        assert build_engine(mine, model, spec_of(model)).is_new
    assert "cannot be used" in caplog.text
    assert read_engine(made.path).compiled == made.compiled


def test_a_file_of_another_release_or_machine_is_not_used_and_the_reason_is_said(mine, model, monkeypatch, caplog):
    build_engine(mine, model, spec_of(model))
    for name, value, words in (
        ("library_version", lambda: "99.1", "runtime's version was"),
        ("device", lambda: "sm_12", "the processor was cpu and is sm_12"),
    ):
        with monkeypatch.context() as context, caplog.at_level(logging.INFO, "colorize_archive.engines"):
            context.setattr(mine, name, value)
            caplog.clear()
            assert build_engine(mine, model, spec_of(model)).is_new
            assert words in caplog.text
    assert not build_engine(mine, model, spec_of(model)).is_new
    assert len(engine_files()) == 3


def test_another_model_of_the_same_name_is_another_engine(mine, model, tmp_path, caplog):
    build_engine(mine, model, spec_of(model))
    other = find_model(str(make_model(tmp_path / "other", size_multiple=16, fixed_px=32)))
    with caplog.at_level(logging.INFO, "colorize_archive.engines"):
        assert build_engine(mine, other, spec_of(other)).is_new
    assert "the model's hash was" in caplog.text


def test_what_the_runtime_refuses_is_built_again_once(mine, model, monkeypatch, caplog):
    build_engine(mine, model, spec_of(model))
    real, calls = mine.open_engine, []

    def refuses_the_first(*words):
        calls.append(words)
        if len(calls) == 1:
            raise RuntimeError("engine of another driver")
        return real(*words)

    monkeypatch.setattr(mine, "open_engine", refuses_the_first)
    with caplog.at_level(logging.INFO, "colorize_archive.engines"), open_engine(spec_of(model)) as engine:
        assert engine.predict(lightness()).shape == (2, 2, 32, 32)
    assert "engine of another driver" in caplog.text
    assert len(calls) == 2

    def refuses(*words):
        calls.append(words)
        raise RuntimeError("no driver")

    monkeypatch.setattr(mine, "open_engine", refuses)
    with pytest.raises(ModelError, match="no driver"):
        open_engine(spec_of(model))
    assert len(calls) == 4


def test_two_that_build_the_same_engine_build_it_once(mine, model, monkeypatch):
    built, real = [], mine.build
    monkeypatch.setattr(mine, "build", lambda *words: built.append(threading.get_ident()) or real(*words))
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(build_engine(mine, model, spec_of(model)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert {each.compiled for each in made} == {made[0].compiled}


@pytest.mark.e2e
def test_two_processes_that_build_the_same_engine_build_it_once(mine, model, tmp_path):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from engines.engine_files import build_engine; from engines.registry import backend_module\n"
        "from engines.spec import EngineSpec, find_model\n"
        "mine, real = backend_module('mine'), backend_module('mine').build\n"
        "mine.build = lambda *words: (time.sleep(1), real(*words))[1]\n"
        "print(build_engine(mine, find_model(sys.argv[2]), EngineSpec('mine', sys.argv[2], (32, 32), 2)).is_new)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "site"), str(model.folder)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=PATIENCE_SECONDS)[0].strip() for process in running]
    assert sorted(said) == ["False", "False", "True"]


@pytest.mark.e2e
def test_a_build_that_is_killed_leaves_nothing_and_the_next_goes_on(mine, model, tmp_path, cache):
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from engines.engine_files import build_engine; from engines.registry import backend_module\n"
        "from engines.spec import EngineSpec, find_model\n"
        "mine = backend_module('mine'); mine.build = lambda *words: os.kill(os.getpid(), 9)\n"
        "build_engine(mine, find_model(sys.argv[2]), EngineSpec('mine', sys.argv[2], (32, 32), 2))\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "site"), str(model.folder)]
    assert subprocess.run(words, check=False).returncode == -9
    assert engine_files() == []
    assert build_engine(mine, model, spec_of(model)).is_new


def test_clean_deletes_them_all_or_those_of_a_model(mine, model):
    made = build_engine(mine, model, spec_of(model))
    assert remove_engines(lambda path: path.name.startswith("other-")) == []
    assert remove_engines(lambda path: path.name.startswith("tiny-")) == [made.path]
    assert engine_files() == []


def test_a_cache_that_cannot_be_written_is_one_line(mine, model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COLORIZE_ARCHIVE_CACHE", str(tmp_path / "file"))
    with pytest.raises(EngineError, match="COLORIZE_ARCHIVE_CACHE"):
        build_engine(mine, model, spec_of(model))
