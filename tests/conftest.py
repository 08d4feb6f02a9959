"""Whatever a test run keeps for later, it keeps where nobody else looks."""

import os

import pytest
from hypothesis import settings

# On a busy machine an example takes what it takes; what hangs is ended by the time limit of its test.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    os.environ["COLORIZE_ARCHIVE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
