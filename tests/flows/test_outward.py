"""Nothing leaves the machine: what commands connect to, and which names they ask for, from their start to their end."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests.outward import Watch, no_strace

# Whoever runs the tests may have switched these off.
SWITCHES = (
    "DO_NOT_TRACK",
    "ORT_DISABLE_TELEMETRY",
    "CI",
    "TF_BUILD",
    "JENKINS_URL",
    "GITHUB_ACTIONS",
    "XDG_CACHE_HOME",
)
TINY = (
    "name: tiny\ngenerator: unet\ngenerator_options: {width: 8, depth: 3}\nprecision: 32-true\nwarmup_steps: 1\n"
    "checkpoint_steps: 2\nsmallest_crop_px: 16\nphases:\n  - {steps: 3, crop_px: 32, batch: 2}\n"
)
RECKONED = {".cache/matplotlib"}  # its list of this machine's fonts


@pytest.fixture
def watch(tmp_path):
    return Watch(tmp_path)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def user(home):
    """The environment of a user who has just come to this machine."""
    kept = {n: v for n, v in os.environ.items() if n not in SWITCHES and not n.startswith("PREFECT_")}
    return {**kept, "HOME": str(home), "COLUMNS": "200"}


def test_the_watch_sees_what_it_is_for(watch, user):
    """Otherwise the tests below could not fail: a connection, and a name, from a process below another."""
    code = "import socket; s = socket.socket(); s.settimeout(0.1); s.connect_ex(('192.0.2.1', 9))"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    seen = watch.run([sys.executable, "-c", child], user)
    assert any("192.0.2.1" in line for line in seen.outside)
    name = "import socket\ntry: socket.getaddrinfo('nobody.invalid', 80)\nexcept OSError: pass"
    assert any("nobody.invalid" in line for line in watch.run([sys.executable, "-c", name], user).outside)


def test_a_library_in_c_is_seen_too(watch, user):
    """As ONNX Runtime, whose own switch is taken away here, would ask for its makers' address."""
    if no_strace():
        pytest.skip(no_strace())
    code = (
        "import ctypes\nlibc = ctypes.CDLL(None)\nfound = ctypes.c_void_p()\n"
        "libc.getaddrinfo(b'nobody.invalid', b'443', None, ctypes.byref(found))"
    )
    assert watch.run([sys.executable, "-c", code], user).outside


def _written(home):
    """What a command left in its user's home, but for what is reckoned with."""
    found = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    return {path for path in found if not path.startswith((*RECKONED, ".cache/colorize-archive"))}


def test_a_run_with_the_default_engine_and_a_list_of_engines(watch, user, home, tmp_path):
    """OpenVINO and ONNX Runtime are both loaded, compared and measured; and Prefect and Dask are started."""
    gray = np.random.default_rng(1).integers(0, 255, (120, 130), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), gray)
    command = [sys.executable, "-m", "flows.cli"]
    ran = watch.run([*command, "run", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--stride", "256"], user)
    assert ran.code == 0, ran.err
    listed = watch.run([*command, "engines", "list"], user)
    assert listed.code == 0, listed.err
    assert ran.calls > 10, "the watch saw nothing of Prefect and Dask"
    assert (*ran.outside, *listed.outside) == ()
    assert _written(home) == set()


def test_trainings_and_an_evaluation(watch, user, home, tmp_path):
    """Of a generator and of a palette; the first is then measured beside the default."""
    pytest.importorskip("torch")
    (tmp_path / "photographs").mkdir()
    rng = np.random.default_rng(1)
    for i in range(20):
        bgr = cv2.resize(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8), (48, 40), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / "photographs" / f"{i:02}.png"), bgr)
    (tmp_path / "tiny.yaml").write_text(TINY)
    few = [word for key in ("epochs=1", "views=1", "batch=8", "warmup_steps=1") for word in ("--set", key)]
    for words in (
        ["train", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run")],
        ["train", "palette-own", "--out", str(tmp_path / "palette"), *few],
        ["evaluate", str(tmp_path / "run" / "model"), "default", "--out", str(tmp_path / "table")],
    ):
        command = [sys.executable, "-m", "flows.cli", *words, "--data", str(tmp_path / "photographs")]
        ended = watch.run(command, user)
        assert ended.code == 0, ended.err
        assert ended.outside == (), words
    assert _written(home) == set()


@pytest.mark.e2e
def test_quantizing_loads_nncf_without_a_word_to_its_makers(watch, user, home):
    pytest.importorskip("nncf")
    code = "import engines, nncf, nncf.telemetry.wrapper as w; assert type(w.telemetry).__name__ == 'MagicMock', w"
    seen = watch.run([sys.executable, "-c", code], user)
    assert seen.code == 0, seen.err
    assert seen.outside == ()
    assert _written(home) == set()
    assert subprocess.run([sys.executable, "-c", "import engines"], env=user).returncode == 0
