"""Whatever a test run keeps for later, it keeps where nobody else looks; and each test says what it needs."""

import os
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
_MARKS = ("unit", "e2e", "service")  # the slowest last
# Fixtures, by what they start. What else starts a process has its mark in its own file.
_SERVICES = {"browser", "served", "set_up"}
_PROCESSES = {"cold_command", "command", "environment", "killed", "lone_command", "shared_server", "watch"}

# Processes, servers and clusters of a busy machine: a test of them that fails runs up to twice more, after a while, and
# the summary shows each. More than pyproject's few of them in one run are no accident, and fail.
_AGAIN = pytest.mark.flaky(reruns=2, reruns_delay=10)


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # pytest-xdist would begin with the files of the most tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test, and bring the files that take longest to the front: small ones fill the end of both processes."""
    weights: dict[Path, int] = {}
    for item in items:
        if not _marked(item):
            item.add_marker(_needs(item))
        if _marked(item)[0] != "unit":
            item.add_marker(_AGAIN)
        weights[item.path] = max(weights.get(item.path, 0), _MARKS.index(_marked(item)[0]))
    items.sort(key=lambda item: -weights[item.path])


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
