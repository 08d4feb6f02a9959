"""What is around a command: the locale, and who reads what it prints. Neither changes what it does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.flows.conftest import Ran
from tests.patience import PATIENCE_SECONDS

NAMES = ("Köln 東京.png", "Straße.png")


@pytest.fixture(scope="module")
def latin(tmp_path_factory, shared_server) -> dict[str, str]:
    """The environment of a Latin-1 terminal; of one without any letters where there is no way to make a locale."""
    folder = tmp_path_factory.mktemp("locales")
    environment = {**shared_server.environment, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    if shutil.which("localedef") and Path("/usr/share/i18n/charmaps").is_dir():
        made = folder / "de_DE.ISO-8859-1"
        subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", made], check=True, capture_output=True)
        environment |= {"LC_ALL": "de_DE.ISO-8859-1", "LOCPATH": str(folder)}
    asked = "import sys; print(sys.getfilesystemencoding())"
    found = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() in ("iso8859-1", "iso-8859-1", "ascii")
    return environment


def run(environment: dict[str, str], *words: object) -> Ran:
    made = subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, words)],
        capture_output=True,
        env=environment,
        timeout=PATIENCE_SECONDS,
    )
    return Ran(made.returncode, made.stdout.decode(), made.stderr.decode())


@pytest.fixture(scope="module")
def coloured(tmp_path_factory, latin) -> tuple[Path, Path]:
    scans = tmp_path_factory.mktemp("in") / "Böcke"
    scans.mkdir()
    for seed, name in enumerate(NAMES):
        picture = np.random.default_rng(seed).integers(0, 256, (60, 80), np.uint8)
        (scans / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    output = tmp_path_factory.mktemp("out") / "Übersicht"
    ran = run(latin, "run", scans, "-o", output, "--engine", "identity")
    assert ran.code == 0, ran.err
    return scans, output


def test_a_locale_changes_no_name(coloured, latin, command):
    scans, output = coloured
    made = {path.name for path in output.glob("*.color.tif")}
    assert made == {name.replace(".png", ".color.tif") for name in NAMES}
    for words in (("verify", output), ("sheet", output), ("inspect", output / "Straße.color.tif"), ("status", output)):
        there, here = run(latin, *words), command(*words)
        assert there.code == here.code == 0, there.err
        assert there.out == here.out
    again = command("run", scans, "-o", output, "--engine", "identity")
    assert "0 done, 2 skipped" in again.line("done,")


@pytest.mark.parametrize(
    ("words", "closed", "code"),
    [(("verify", "{output}"), 1, 0), (("verify", "{output}/nothing"), 2, 2), (("models",), 1, 0)],
)
def test_the_exit_code_says_what_was_found_whoever_reads(coloured, environment, words, closed, code):
    reader, writer = os.pipe()
    os.close(reader)
    streams = {1: {"stdout": writer, "stderr": subprocess.PIPE}, 2: {"stdout": subprocess.PIPE, "stderr": writer}}
    command = [sys.executable, "-m", "flows.cli", *(word.format(output=coloured[1]) for word in words)]
    ran = subprocess.run(command, env=environment, timeout=PATIENCE_SECONDS, check=False, **streams[closed])
    os.close(writer)
    assert ran.returncode == code
    assert not ran.stderr or b"pipe" not in ran.stderr
