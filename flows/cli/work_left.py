"""How far a run is, and how long it will take: counts of scans, tiles and megapixels, and the time left.

The tiles that are left, divided by the rate at which tiles were made lately, is how long colouring takes; what is read
or written meanwhile slows the tiles down, and so is counted already. After the last tile, the last scans are still to
be written: that takes as long for each megapixel as it did for those before, and for the first as long as reading it
lets expect. Tiles that were there before the run say nothing of its speed, and neither does what goes before the first
one: starting, reading, the palette.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.planning.cost import MEASURED

# The rate is that of the later half of the time so far, but of at least so many seconds.
_RATE_SECONDS = 20.0
_KEPT_EVENTS = 2000
# Until a scan was written, for each megapixel of it: what one processor takes, and how much longer than reading it.
_WRITING_SECONDS = 1 / MEASURED.export_megapixels_per_second
# A batch counts as like another up to so many times its megapixels.
_LIKE = 4.0
_WRITING_PER_READING = MEASURED.ingest_megapixels_per_second / MEASURED.export_megapixels_per_second


@dataclass
class _Scan:
    tiles: int
    megapixels: float
    batch: str
    stage: str = ""
    done: int = 0


@dataclass
class _Batch:
    """Scans that are coloured and written together."""

    scans: set[str] = field(default_factory=set)
    tiles: int = 0
    megapixels: float = 0.0
    read_at: float | None = None
    coloured_at: float | None = None


@dataclass(frozen=True)
class ScanState:
    """A scan in work: its stage, and the share of its tiles that is done, 0 to 1."""

    name: str
    stage: str
    share: float


@dataclass(frozen=True)
class Snapshot:
    """How far a run is.

    ``megapixels_per_second`` and ``seconds_left`` are None as long as too little was done to tell; ``share`` is that of
    all tiles, 0 to 1, or of scans where there are no tiles to make.
    """

    scans: int
    scans_done: int
    tiles: int
    tiles_done: int
    share: float
    megapixels_per_second: float | None
    seconds_left: float | None
    in_work: tuple[ScanState, ...]


class WorkLeft:
    """Counts what is done of a run's work; may be called from any thread. ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._scans: dict[str, _Scan] = {}
        self._batches: dict[str, _Batch] = {}
        self._planned, self._finished = 0, 0
        self._tiles, self._tiles_done, self._new, self._megapixels = 0, 0, 0, 0.0
        self._history: deque[tuple[float, int]] = deque(maxlen=_KEPT_EVENTS)
        self._expected: float | None = None
        # Megapixels of the largest batch that was written, and the seconds that it took.
        self._written: tuple[float, float] | None = None

    def plan(self, scan: str, tiles: int, megapixels: float, batch: str) -> None:
        """A scan is to be coloured."""
        with self._lock:
            self._scans[scan] = _Scan(tiles, megapixels, batch)
            one = self._batches.setdefault(batch, _Batch())
            one.scans.add(scan)
            one.tiles += tiles
            one.megapixels += megapixels
            self._planned += 1
            self._tiles += tiles
            self._megapixels += megapixels

    def begin(self, scan: str, stage: str) -> None:
        """A stage of a scan has begun."""
        with self._lock:
            if (found := self._scans.get(scan)) is None:
                return
            found.stage = stage
            batch, now = self._batches[found.batch], self._clock()
            if stage == "reading" and batch.read_at is None:
                batch.read_at = now
            # The first scans wait for nothing between reading and colouring.
            if stage == "colouring" and batch.read_at is not None and self._expected is None and batch.megapixels:
                self._expected = _WRITING_PER_READING * (now - batch.read_at) / batch.megapixels

    def advance(self, scan: str, tiles: int, are_new: bool = True) -> None:
        """More tiles of a scan are done; those beyond its plan, as of refinements, do not count."""
        with self._lock:
            if (found := self._scans.get(scan)) is None:
                return
            tiles = min(tiles, found.tiles - found.done)
            found.done += tiles
            self._tiles_done += tiles
            if are_new:
                self._new += tiles
                self._history.append((self._clock(), self._new))
            self._count_off(found, tiles)

    def _count_off(self, scan: _Scan, tiles: int) -> None:
        batch = self._batches[scan.batch]
        batch.tiles -= tiles
        if batch.tiles <= 0 and batch.coloured_at is None:
            batch.coloured_at = self._clock()

    def finish(self, scan: str, is_written: bool) -> None:
        """A scan has ended; what was left of it is not to be done any more."""
        with self._lock:
            if (found := self._scans.pop(scan, None)) is None:
                return
            self._finished += 1
            left = found.tiles - found.done
            self._tiles -= left
            batch = self._batches[found.batch]
            batch.scans.discard(scan)
            if not batch.scans:
                del self._batches[found.batch]
                if is_written and batch.coloured_at is not None and batch.megapixels > (self._written or (0.0,))[0]:
                    self._written = batch.megapixels, self._clock() - batch.coloured_at
                return
            self._count_off(found, left)

    def now(self) -> Snapshot:
        """How far the run is."""
        with self._lock:
            rate = self._rate()
            left = self._tiles - self._tiles_done
            by_tiles = self._tiles_done / self._tiles if self._tiles else 0.0
            return Snapshot(
                scans=self._planned,
                scans_done=self._finished,
                tiles=self._tiles,
                tiles_done=self._tiles_done,
                share=by_tiles if self._tiles else self._finished / max(1, self._planned),
                megapixels_per_second=rate and rate * self._megapixels / max(1, self._tiles),
                seconds_left=self._seconds_left(left, rate),
                in_work=tuple(
                    ScanState(name, scan.stage, scan.done / scan.tiles if scan.tiles else 0.0)
                    for name, scan in self._scans.items()
                    if scan.stage
                ),
            )

    def _rate(self) -> float | None:
        """Tiles per second lately; None before the second event."""
        if len(self._history) < 2:
            return None
        now, (first, _), (last, done) = self._clock(), self._history[0], self._history[-1]
        since = min(now - _RATE_SECONDS, first + (now - first) / 2)
        begin, before = next((each for each in self._history if each[0] >= since), self._history[0])
        if begin >= last:
            begin, before = self._history[-2]
        # Tiles come in lumps: the last one counts up to when the next one is due.
        lump = (last - begin) / max(1, sum(1 for time, _ in self._history if time > begin))
        seconds = max(last, now - lump) - begin
        return (done - before) / seconds if seconds > 0 and done > before else None

    def _seconds_left(self, tiles: int, rate: float | None) -> float | None:
        if not self._scans:
            return 0.0
        if tiles and rate is None:
            return None
        colouring = tiles / rate if tiles and rate else 0.0
        last = list(self._batches.values())[-1]
        each = self._expected or _WRITING_SECONDS
        if self._written is not None:
            megapixels, seconds = self._written
            # Small scans take longer for each megapixel, by how much is not known: the truth lies between.
            is_like = last.megapixels <= _LIKE * megapixels
            each = seconds / megapixels if is_like else math.sqrt(each * seconds / megapixels)
        return colouring + max(0.0, each * last.megapixels - (self._clock() - (last.coloured_at or self._clock())))
