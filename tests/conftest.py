"""Whatever a test run keeps for later, it keeps where nobody else looks; and each test says what it needs."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# On a busy machine an example takes what it takes; what hangs is ended by the time limit of its test.
# The same examples each time: what a change breaks fails with it. `--hypothesis-profile random` looks for more.
settings.register_profile("patient", deadline=None, max_examples=150, derandomize=True)
settings.register_profile("quick", deadline=None, max_examples=15, derandomize=True)
settings.register_profile("random", deadline=None, max_examples=1500)
settings.load_profile("patient")

_DEPLOY = Path(__file__).parent / "deploy"
_MARKS = ("unit", "e2e", "service")
# About as long as the files that take longest take, alone on a machine; of any other file, by its slowest mark.
_LONG = dict(line.split("\t") for line in (Path(__file__).parent / "seconds.tsv").read_text().splitlines())
_OTHERS = {"unit": 1.0, "e2e": 6.0, "service": 10.0}
# Fixtures, by what they start. What else starts a process has its mark in its own file.
_SERVICES = {"browser", "served", "set_up"}
_PROCESSES = {"cold_command", "command", "environment", "killed", "lone_command", "shared_server", "watch"}

# Processes, servers and clusters of a busy machine: a test of them that fails runs up to twice more, after a while, and
# the summary shows each. More than pyproject's few of them in one run are no accident, and fail.
_AGAIN = pytest.mark.flaky(reruns=2, reruns_delay=10)


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # pytest-xdist would begin with the files of the most tests
    # Hundreds of processes that tests start import this project; without its bytecode each compiles it again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test, and bring the files that take longest to the front: small ones fill the end of both processes."""
    seconds: dict[Path, float] = {}
    for item in items:
        if not _marked(item):
            item.add_marker(_needs(item))
        if _marked(item)[0] != "unit":
            item.add_marker(_AGAIN)
        seconds[item.path] = max(seconds.get(item.path, 0), _OTHERS[_marked(item)[0]])
    for name, told in _LONG.items():
        if (path := Path(__file__).parents[1] / name) in seconds:
            seconds[path] = float(told)
    items.sort(key=lambda item: -seconds[item.path])


def _marked(item: pytest.Item) -> list[str]:
    return [mark.name for mark in item.iter_markers() if mark.name in _MARKS]


def _needs(item: pytest.Item) -> str:
    """The mark of a test that has none."""
    fixtures = set(getattr(item, "fixturenames", ()))
    if _SERVICES & fixtures or _DEPLOY in item.path.parents:
        return "service"
    return "e2e" if _PROCESSES & fixtures else "unit"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """One for all processes of the test run: what a machine measures once takes it most of a minute."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    (folder / "cache").mkdir(exist_ok=True)
    os.environ["COLORIZE_ARCHIVE_CACHE"] = str(folder / "cache")
