"""Surroundings in which a run says what is missing at once, or does without: the cheap rows of the table."""

from __future__ import annotations

import errno
import os

import pytest

from pipeline.errors import UsageError
from pipeline.support.files import folder_lock
from tests.benchmarks import surroundings
from tests.benchmarks.surroundings import ROWS, CannotError, is_right, run_row

pytestmark = pytest.mark.e2e

CHEAP = {
    ("no /dev/shm", "run"),
    ("a container of 900 MiB", "run"),
    ("/tmp and /var/tmp cannot be written", "run"),
    ("a file system without hard links: none is asked for", "run"),
    ("Prefect's database in the home is damaged", "up"),
    ("a user without a name and a HOME", "up"),
}


@pytest.mark.parametrize("row", [row for row in ROWS if (row.name, row.command) in CHEAP], ids=lambda row: row.name)
def test_it_is_as_the_table_says(row, tmp_path):
    try:
        ran = run_row(row, tmp_path)
    except CannotError as error:
        pytest.skip(str(error))
    assert is_right(row, ran, tmp_path), ran.said


def test_the_rows_are_found():
    assert {(row.name, row.command) for row in ROWS} >= CHEAP


def test_a_row_that_is_not_right_is_seen(tmp_path, monkeypatch):
    """Otherwise the tests above could not fail."""
    row = surroundings.Row("nothing at all", surroundings.plain, says="^this is never said$")
    ran = surroundings.Ran(0, "1 done\n", 1.0)
    assert not is_right(row, ran, tmp_path)


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("pipeline.support.files.fcntl.flock", refused)
    with pytest.raises(UsageError, match="has no locks"), folder_lock(tmp_path):
        pass
