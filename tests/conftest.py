"""Whatever a test run keeps for later, it keeps where nobody else looks."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    os.environ["COLORIZE_ARCHIVE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
