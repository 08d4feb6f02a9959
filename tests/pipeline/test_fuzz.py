"""Damaged files are read or refused in one line: a few hundred here, thousands by ``tests.benchmarks.fuzz``."""

import sys
from pathlib import Path

import pytest

from tests.benchmarks.fuzz import Prober, Tally, made_seeds, run

SCANS = Path(__file__).parents[1] / "scans"


def test_damaged_files_are_read_or_refused_in_one_line():
    seeds = [path.read_bytes() for path in SCANS.iterdir() if path.suffix in (".jpg", ".png", ".tif")] + made_seeds()
    tally = run(seeds, 0, 400)
    assert tally.faults == []
    assert tally.said["read"] > 40
    assert tally.said["refused in one line"] > 100


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("import os; os.kill(os.getpid(), 11)", "died"),
        ("import time; time.sleep(60)", "no answer"),
        ('print(\'{"said": "read", "seconds": 0, "peak_bytes": 2000000000}\', flush=True)', "2.00 GB"),
        ('print(\'{"fault": "KeyError: 1", "seconds": 0, "peak_bytes": 0}\', flush=True)', "KeyError"),
    ],
)
def test_what_is_a_fault_is_seen(does, told):
    """A process that crashes, hangs, takes too much or raises what is not ours."""
    script = f"import sys; print('ready', flush=True)\nfor line in sys.stdin: exec({does!r})"
    prober, tally = Prober((sys.executable, "-c", script), limit_seconds=2.0), Tally()
    assert tally.add(0, prober.ask(Path("any"), salvage=False))
    assert told in tally.faults[0][1]
    prober.close()
