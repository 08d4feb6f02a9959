"""One fault of each of four kinds, and the same bytes after it. The table of all kinds: tests/benchmarks/faults.py."""

import pytest

from engines.machine import processors
from tests.benchmarks.faults import prepare, run_moment

pytestmark = pytest.mark.e2e

SHAPE_YX, STRIDE, BLOCK_PX = (1536, 1024), 32, 512
SEED = 5


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("faults"), SEED, STRIDE, SHAPE_YX, BLOCK_PX)


@pytest.mark.parametrize("kind", ["worker", "client", "scheduler", "poisoned"])
def test_a_fault_loses_nothing_and_the_same_command_ends_with_the_same_bytes(bench, kind):
    moment = run_moment(bench, kind, 1, SEED)
    assert moment.wrong == ()
    assert moment.odd_messages == ()
    assert (moment.lost, moment.differing, moment.hangs) == (0, 0, 0)
    assert (moment.processes, moment.files) == (0, ())
    assert moment.repeated <= 3 * processors()
    assert moment.codes[-1] == 0
