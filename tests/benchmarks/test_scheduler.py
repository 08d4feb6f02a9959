"""A real scheduler with workers that only wait, driven by the project's own queue; and what is said about it."""

import pickle

import pytest

pytest.importorskip("psutil")

from flows.cluster.queue import grouped
from tests.benchmarks.scheduler import Load, Measured, conclusion, groups, measure, stand_in, to_table


@pytest.mark.parametrize("workers", [2, 8])
def test_the_queue_keeps_a_few_workers_busy(workers):
    load = Load(workers, 0.25, 4 * workers, events=2)
    with stand_in(workers) as cluster:
        made = measure(cluster, load)
    # Every block came back, none before its time; how much later depends on what else the machine does.
    assert made.seconds >= load.ideal_seconds == 1.0
    assert made.efficiency > 0.05
    assert min(made.scheduler_seconds, made.client_seconds, made.workers_seconds) >= 0


def test_the_blocks_are_those_of_a_scan():
    made = list(groups(300))
    assert len({group[0].index_yx for group in made}) == 256  # of 16 x 16 blocks, then from the start again
    assert all(len(group) == 1 for group in grouped((task for (task,) in made[:3]), 64))
    assert pickle.loads(pickle.dumps(made[0])) == made[0]


def _measured(workers, delay_seconds, seconds, scheduler_seconds, driver="queue"):
    return Measured(
        Load(workers, delay_seconds, 8 * workers, driver=driver), seconds, scheduler_seconds, 0.01, 0.1, 0.0
    )


def test_efficiency_is_the_ideal_time_over_the_measured_one():
    made = _measured(8, 0.5, 5.0, 0.32)
    assert made.load.ideal_seconds == 4.0
    assert made.efficiency == 0.8
    assert made.tasks_per_second == 12.8
    assert made.ceiling == 200


def test_the_conclusion_names_both_sides_of_ninety_percent():
    measured = [
        _measured(8, 1.0, 8.1, 0.3),
        _measured(64, 1.0, 8.8, 1.0),
        _measured(512, 1.0, 16.0, 8.192),
        _measured(512, 1.0, 8.5, 4.096, "map"),
    ]
    queue, ceiling, mapped, _ = conclusion(measured).splitlines()
    assert queue == "queue: at most 256 blocks/s; efficiency at least 90% up to 64.0 blocks/s; below it from 512.0 on"
    assert "500 blocks/s" in ceiling
    assert "0.018 s, 0.14 s, 1.1 s" in ceiling
    assert mapped == "map: at most 482 blocks/s; efficiency at least 90% up to 512.0 blocks/s"
    assert {line.count("|") for line in to_table(measured).splitlines()} == {12}
