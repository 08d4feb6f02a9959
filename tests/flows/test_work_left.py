"""The time left of a run is right within a quarter after its first tenth, and the lines fit the terminal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from flows.cli.run_report import as_time, lines_of, progress_line
from flows.cli.work_left import ScanState, Snapshot, WorkLeft


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def told(scans: list[tuple[int, float]], tile_seconds: float, write_seconds: float, there: int = 0, seed: int = 0):
    """(time, seconds left) after every event of a run that reads, colours and writes one scan after the other.

    Scans are tiles and megapixels; writing overlaps the colouring of the next scan; ``there`` tiles of the first were
    there. Tiles take some time of their own each and come in lumps, as workers tell of them.
    """
    clock, random = Clock(), np.random.default_rng(seed)
    work, seen = WorkLeft(clock), []
    for n, (tiles, megapixels) in enumerate(scans):
        work.plan(f"{n}", tiles, megapixels, f"{n}")
    clock.seconds = 3.0
    written = 0.0
    ends: list[tuple[float, str]] = []

    def look() -> None:
        seen.append((clock.seconds, work.now().seconds_left))

    for n, (tiles, megapixels) in enumerate(scans):
        work.begin(f"{n}", "colouring")
        if n == 0 and there:
            work.advance("0", there, are_new=False)
        left = tiles - (there if n == 0 else 0)
        while left:
            lump = min(left, int(random.integers(1, 9)))
            then = clock.seconds + lump * tile_seconds * random.uniform(0.5, 1.5)
            while ends and ends[0][0] <= then:
                clock.seconds, name = ends.pop(0)
                work.finish(name, is_written=True)
            clock.seconds = then
            work.advance(f"{n}", lump)
            left -= lump
            look()
        written = max(written, clock.seconds) + megapixels * write_seconds
        ends.append((written, f"{n}"))
    for end, name in ends:
        clock.seconds = max(clock.seconds, end)
        work.finish(name, is_written=True)
    return seen, clock.seconds


RUNS = {
    "many small scans": ([(6, 0.3)] * 200, 0.05, 0.1, 0),
    "scans of many sizes": ([(int(n), n / 20) for n in np.random.default_rng(1).integers(2, 400, 60)], 0.05, 0.1, 0),
    "one large scan": ([(4000, 200.0)], 0.05, 0.05, 0),
    "one large scan, half of it there": ([(4000, 200.0)], 0.05, 0.05, 2000),
    "a large scan after small ones": ([(20, 1.0)] * 30 + [(3000, 150.0)], 0.05, 0.1, 0),
}


@pytest.mark.parametrize("run", RUNS)
def test_the_time_left_is_right_within_a_quarter_after_a_tenth(run):
    scans, tile_seconds, write_seconds, there = RUNS[run]
    seen, end = told(scans, tile_seconds, write_seconds, there)
    began = seen[0][0]
    later = [(at, left) for at, left in seen if at > began + (end - began) / 10 and end - at > 3]
    assert len(later) > 50
    # How long the last scan takes to write is not known before; 3 % of the run's time is room for that.
    room = 0.03 * (end - began)
    wrong = [
        (at, left, end - at) for at, left in later if left is None or abs(left - (end - at)) > max(room, (end - at) / 4)
    ]
    assert not wrong, wrong[:5]


def test_a_slower_second_half_is_noticed():
    clock = Clock()
    work = WorkLeft(clock)
    work.plan("a", 2000, 100.0, "a")
    for seconds in (0.05, 0.2):
        for _ in range(100):
            clock.seconds += 8 * seconds
            work.advance("a", 8)
    assert work.now().seconds_left == pytest.approx(400 * 0.2 + 10, rel=0.25)


def test_what_is_not_done_any_more_is_not_waited_for():
    clock = Clock()
    work = WorkLeft(clock)
    for name in "ab":
        work.plan(name, 100, 5.0, name)
    assert work.now().seconds_left is None
    for _ in range(10):
        clock.seconds += 1
        work.advance("a", 10)
    work.advance("a", 50)  # of a refinement
    assert work.now().tiles_done == 100
    work.finish("b", is_written=False)
    work.finish("a", is_written=True)
    work.advance("a", 10)  # late
    found = work.now()
    assert (found.scans_done, found.tiles, found.tiles_done, found.seconds_left) == (2, 100, 100, 0.0)
    assert not found.in_work


def test_scans_without_tiles_count_as_scans():
    work = WorkLeft(Clock())
    for name in "abcd":
        work.plan(name, 0, 5.0, name)
    work.finish("a", is_written=True)
    assert work.now().share == 0.25


NAMES = st.text(min_size=1, max_size=80)


@settings(max_examples=40)
@pytest.mark.parametrize("width", [20, 60, 80, 200])
@given(names=st.lists(NAMES, max_size=20), done=st.integers(0, 10**6), left=st.one_of(st.none(), st.floats(0, 1e6)))
def test_no_line_is_wider_than_the_terminal(width, names, done, left):
    in_work = tuple(ScanState(name, "colouring", n / 50) for n, name in enumerate(names))
    rate = None if left is None else left / 1000
    found = Snapshot(10**6, done, 10**7, done * 10, done / 10**6, rate, left, in_work)
    lines = list(lines_of(found, width, height=24))
    assert max(map(cell_len, lines)) < width - 2  # and the terminal's own ^C
    assert len(lines) <= 1 + min(8, max(1, len(names)))
    if len(names) > 8:
        assert lines[-1].strip().startswith("and ")
    assert "\n" not in progress_line(found)


def test_a_line_says_how_far_a_run_is():
    found = Snapshot(340, 12, 4000, 1200, 0.3, 4.2, 3753.0, (ScanState("box/plate", "colouring", 0.5),))
    for width, words in (
        (60, ("12/340 scans", "30%", "1:02:33 left")),
        (80, ("4.20 MP/s",)),
        (200, ("1200/4000 tiles",)),
    ):
        bar, scan = lines_of(found, width)
        assert [word for word in words if word not in bar] == []
        assert scan.split() == ["box/plate", "colouring", "50%"]
    assert progress_line(found) == "12/340 scans, 30%, 1200/4000 tiles, 4.20 MP/s, 1:02:33 left"
    assert as_time(59.6) == "1:00"
    assert "#" in next(lines_of(found, 80, ascii_only=True))
