"""The fault table: python -m tests.benchmarks.faults [--moments 20] [--disk 5] [--seed 1] [--only KIND] [--work DIR]

Two scans, of 21 and of 0.3 megapixels, coloured by one command in 21 blocks, which one fault disturbs at a random
moment: by turns at a time between its first second and its end, and after a number of finished blocks, every other time
just when a shard is written. An undisturbed run comes first: it says how long that is, and its bytes are what every
disturbed run must come to. Kinds:

worker     SIGKILL to a worker process of the local cluster; the same command must finish
scheduler  SIGKILL to the scheduler of a cluster that was there (dask scheduler, dask worker); then a new one, and again
client     SIGKILL to the command itself; then the same command again
machine    SIGKILL to the whole process group at once; then the same command again
disk       the file system of the output is full at another stage each time; then it is larger, and again
vanishes   the source is renamed, every other time while it is ingested; then it is back, and again if that is needed
changes    the source is overwritten, every other time while it is ingested; then it is as it was, and again
poisoned   the engine raises on one tile; then it does not, and again

The table counts, over all moments of a kind:

lost blocks      blocks whose record was there, and true, after the fault, and that were begun again (or that the next
                 run did not find); must be 0
differing bytes  of pictures, chroma shards and scan shards against the undisturbed run; must be 0
repeated         blocks begun more than once, the most of any moment; at most those in flight, three for each thread
hangs            commands that took more than 120 s, or 60 s after their scheduler died; stacks of all their processes
                 (py-spy, where it is installed) are saved beside the results
odd messages     lines that are no line of a report, and tracebacks; must be 0
processes        left over 15 s after their command was gone; must be 0
files            in the output that the undisturbed run did not leave; must be 0
not right        what else should have been otherwise (exit codes, scans that had to finish), in the notes

Results are kept in ``--work`` as they come: a moment that is there is not run again. So are the undisturbed run and the
folder of each moment that was not right. Needs: pip install '.[dev]';
``disk`` needs the right to mount a tmpfs, and is left out without it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import psutil
import tifffile

from engines.machine import processors
from flows.resources import split_workers
from pipeline.colour.lab import lightness_from_samples
from pipeline.errors import UsageError
from pipeline.planning.plan import batch_for, make_plan
from pipeline.support.files import file_sha256
from pipeline.tiling.grid import TileGrid
from pipeline.types import ScanInfo

PHOTOGRAPH = Path(__file__).parents[1] / "scans" / "sunset-beach.jpg"
SHAPE_YX, SMALL_YX = (5120, 4096), (500, 600)
TILE_YX, STRIDE, BLOCK_PX = (128, 128), 32, 1024
LARGE, SMALL = "large", "small"
SOFTWARE = f"colorize-archive {version('colorize-archive')}"  # pictures name it
_PLANTED = 32  # gray levels that only one pixel has
_HANG_SECONDS, _LOST_SCHEDULER_SECONDS, _VANISH_SECONDS = 120.0, 60.0, 15.0
_POLL_SECONDS = 0.01
_RECORDS = "*.zarr/versions/*/chroma/records/*.json"
_HALF_SHARDS = "*.zarr/versions/*/chroma/c/*/*/*.partial"
_MARK, _LOG, _POISON = "FAULTS_RUN", "FAULTS_LOG", "FAULTS_POISON"
# Every line that a command may say where no terminal shows its bars.
_LINES = re.compile(
    r"engine |done     |failed   |skipped  |\d+ done, \d+ skipped, \d+ failed; |contact sheet: file:///"
    r"|colorize-archive: "
)
Block = tuple[str, int, int]

# Runs in every process of a command, before anything else: its folder is on PYTHONPATH.
_HOOK = f'''
import importlib.machinery, os, sys


def count_blocks(module):
    # What a task begins to make: it leaves out what a lost worker had finished before.
    made = module._made

    def counted(tasks, engine):
        lines = "".join(f"{{task.scan}} {{task.index_yx[0]}} {{task.index_yx[1]}}\\n" for task in tasks)
        log = os.open(os.environ["{_LOG}"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, lines.encode())
        os.close(log)
        return made(tasks, engine)

    module._made = counted


def poison(module):
    predict = module.IdentityEngine.predict

    def poisoned(self, lightness):
        try:
            with open(os.environ["{_POISON}"]) as marker:
                value = float(marker.read())
        except OSError:
            return predict(self, lightness)
        if (lightness == lightness.dtype.type(value)).any():
            raise RuntimeError("a poisoned tile")
        return predict(self, lightness)

    module.IdentityEngine.predict = poisoned


CHANGES = {{"flows.cluster.worker": count_blocks, "engines.backends.identity": poison}}


class Finder:
    @staticmethod
    def find_spec(name, path, target=None):
        if name not in CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            CHANGES[name](module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder)
'''


@dataclass(frozen=True)
class Bench:
    """What all moments share: the sources, the words of the command, and the undisturbed run with its seconds."""

    folder: Path
    words: tuple[str, ...]
    planted_yx: tuple[tuple[int, int], ...]
    seconds: float = 0.0

    @property
    def sources(self) -> tuple[Path, Path]:
        return self.folder / "scans" / f"{LARGE}.tif", self.folder / "scans" / f"{SMALL}.png"

    @property
    def undisturbed(self) -> Path:
        return self.folder / "undisturbed" / "out"


@dataclass(frozen=True)
class Ended:
    """A command that is over: exit code, lines of standard error, seconds since its start or since the fault."""

    code: int
    lines: tuple[str, ...]
    seconds: float
    hung: bool

    def failed(self, source: Path) -> bool:
        return any(line.startswith("failed   ") and str(source) in line for line in self.lines)


@dataclass(frozen=True)
class Moment:
    """What one disturbed run came to; see the table's columns."""

    kind: str
    number: int
    seed: int
    at: str
    blocks_there: int
    lost: int
    differing: int
    repeated: int
    hangs: int
    odd_messages: tuple[str, ...]
    processes: int
    files: tuple[str, ...]
    seconds: float
    codes: tuple[int, ...]
    wrong: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        counted = self.lost, self.differing, self.hangs, self.odd_messages, self.processes, self.files, self.wrong
        return not any(counted) and self.repeated <= 3 * processors()


def write_scans(folder: Path, shape_yx: tuple[int, int], seed: int) -> tuple[tuple[int, int], ...]:
    """A large and a small scan of a mirrored photograph with grain; returns where the planted pixels are.

    The planted pixel number n is the only one of gray level n.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    photograph = cv2.imread(str(PHOTOGRAPH), cv2.IMREAD_GRAYSCALE)
    both = np.vstack([photograph, photograph[::-1], photograph[:, ::-1]])
    gray = np.tile(np.hstack([both, both[:, ::-1]]), (1 + shape_yx[0] // both.shape[0], 1))
    gray = gray[: shape_yx[0], : shape_yx[1]]
    gray = np.clip(gray + np.rint(rng.normal(0, 2, gray.shape)), _PLANTED, 255).astype(np.uint8)
    places = [(int(y), int(x)) for y, x in zip(*(rng.integers(0, side, _PLANTED) for side in shape_yx), strict=True)]
    for level, (y, x) in enumerate(places):
        gray[y, x] = level
    tifffile.imwrite(folder / f"{LARGE}.tif", gray, tile=(512, 512), compression="zlib")
    cv2.imwrite(str(folder / f"{SMALL}.png"), np.maximum(gray[: SMALL_YX[0], : SMALL_YX[1]], _PLANTED))
    return tuple(places)


def words_for(shape_yx: tuple[int, int], stride: int, block_px: int) -> tuple[str, ...]:
    """The command's settings, with the smallest memory limit that makes its plan choose ``block_px``."""
    grid = TileGrid.of(shape_yx, TILE_YX, (stride, stride))
    for limit in range(2**30, 2**33, 2**24):
        with contextlib.suppress(UsageError):
            workers = split_workers(None, TILE_YX, limit)
            plan = make_plan(ScanInfo(shape_yx, 1, "uint8"), grid, batch_for(TILE_YX), workers, limit, scans=2)
            if plan.block_px == block_px:
                words = ("--engine", "identity", "--window", "hann", "--tile", str(TILE_YX[0]), "--stride", str(stride))
                return (*words, "--limit-memory", f"{limit / 2**30}GiB")
    raise SystemExit(f"no limit of memory gives blocks of {block_px} px")


def prepare(
    folder: Path,
    seed: int = 1,
    stride: int = STRIDE,
    shape_yx: tuple[int, int] = SHAPE_YX,
    block_px: int = BLOCK_PX,
) -> Bench:
    """Write scans and hook, and do the undisturbed run, if they are not there from an earlier call."""
    known = folder / "undisturbed.json"
    if known.exists():
        values = json.loads(known.read_text())
        if values["software"] != SOFTWARE:
            raise SystemExit(f"{folder}: begun with {values['software']}, this is {SOFTWARE}: give another --work")
        return Bench(folder, tuple(values["words"]), tuple(map(tuple, values["planted_yx"])), values["seconds"])
    words = words_for(shape_yx, stride, block_px)
    bench = Bench(folder, words, write_scans(folder / "scans", shape_yx, seed))
    (folder / "hook").mkdir(exist_ok=True)
    (folder / "hook" / "sitecustomize.py").write_text(_HOOK)
    trial = Trial(bench, "undisturbed", 0, seed, folder / "undisturbed")
    shutil.rmtree(trial.folder, ignore_errors=True)
    trial.set_out()
    ended = trial.end(trial.start())
    if ended.code != 0 or trial.wrong or trial.processes or any(map(_is_odd, ended.lines)):
        raise SystemExit(f"the undisturbed run is not right: {ended} {trial.wrong}")
    made = {"software": SOFTWARE, "words": words, "planted_yx": bench.planted_yx, "seconds": ended.seconds}
    known.write_text(json.dumps(made, indent=2))
    return Bench(folder, bench.words, bench.planted_yx, ended.seconds)


def _is_odd(line: str) -> bool:
    return "Traceback" in line or not _LINES.match(line)


def _marked(mark: str) -> list[psutil.Process]:
    """Processes that have ``mark`` in their environment, whoever's children they are by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == mark:
                found.append(process)
    return found


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _wait_for(condition: Callable[[], object], seconds: float, poll_seconds: float = _POLL_SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_seconds)
    return True


def valid_blocks(output: Path) -> set[Block]:
    """Blocks with a record that describes their shard byte for byte; read without the code that is tested."""
    found: set[Block] = set()
    for path in output.rglob("records/*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            record = json.loads(path.read_text())
            y, x = record["index_yx"]
            files = {name: (path.parents[2] / name).read_bytes() for name in record["files"]}
            if all([len(data), zlib.crc32(data)] == record["files"][name] for name, data in files.items()):
                found.add((path.relative_to(output).parts[0].removesuffix(".zarr"), y, x))
    return found


def _results(output: Path) -> dict[str, Path]:
    """All files that do not depend on time: by their path in the output."""
    files = (path for path in output.rglob("*") if path.is_file())
    return {str(p.relative_to(output)): p for p in files if p.relative_to(output).parts[0] != "runs"}


def differing_bytes(output: Path, expected: Path) -> int:
    """Of every picture and every shard, of the scan and of its chroma; missing ones count whole."""
    differing = 0
    there = _results(output)
    for name, path in _results(expected).items():
        if not (name.endswith(".color.tif") or "/c/" in name):
            continue
        ours = np.frombuffer(there[name].read_bytes() if name in there else b"", np.uint8)
        theirs = np.frombuffer(path.read_bytes(), np.uint8)
        common = min(len(ours), len(theirs))
        differing += int(np.count_nonzero(ours[:common] != theirs[:common])) + abs(len(ours) - len(theirs))
    return differing


@dataclass
class Command:
    """A command that runs, in a process group and with a mark of its own."""

    process: subprocess.Popen
    mark: str
    said: Path
    started: float

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def workers(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            below = psutil.Process(self.process.pid).children(recursive=True)
            return [each for each in below if "spawn_main" in " ".join(_command_line(each))]
        return []


def _command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


@dataclass
class Trial:
    """One moment while it is played: starts and ends commands, and counts."""

    bench: Bench
    kind: str
    number: int
    seed: int
    folder: Path
    haste: float = 1.0
    words: tuple[str, ...] = ()
    at: str = ""
    missed: bool = False
    fault_time: float | None = None
    there: set[Block] = field(default_factory=set)
    begun_before: int = 0
    ended: list[Ended] = field(default_factory=list)
    processes: int = 0
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.seed} {self.kind} {self.number}")

    @property
    def output(self) -> Path:
        return self.folder / "out"

    @property
    def sources(self) -> tuple[Path, Path]:
        large, small = (self.folder / path.name for path in self.bench.sources)
        return large, small

    @property
    def poison(self) -> Path:
        return self.folder / "poison"

    def set_out(self) -> None:
        self.output.mkdir(parents=True)
        for original, copy in zip(self.bench.sources, self.sources, strict=True):
            shutil.copyfile(original, copy)

    def environment(self, mark: str) -> dict[str, str]:
        paths = [str(self.bench.folder.absolute() / "hook"), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PREFECT_HOME": str(self.bench.folder.absolute() / "prefect"),
            "COLUMNS": "200",
            _MARK: mark,
            _LOG: str(self.folder.absolute() / "begun"),
            _POISON: str(self.poison.absolute()),
        }

    def start(self) -> Command:
        mark, said = uuid.uuid4().hex, self.folder / f"said-{len(self.ended)}.txt"
        words = ["run", *map(str, self.sources), "-o", str(self.output), *self.bench.words, *self.words]
        with said.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=self.environment(mark),
                start_new_session=True,
            )
        return Command(process, mark, said, time.monotonic())

    def wait_for_moment(self, command: Command) -> bool:
        """Wait for this trial's random moment; False where the command was faster.

        Even ones are at a time of the whole command; odd ones after a number of blocks; of these, every other waits
        on until a shard is just being written.
        """
        if self.number % 2 == 0:
            return self._wait_for_time(command)
        blocks = self.rng.randrange(len(valid_blocks(self.bench.undisturbed)))
        seconds = self.rng.uniform(0, 0.3)
        if not self.reached(command, f"{blocks} blocks", lambda: self._count(_RECORDS) >= blocks):
            return False
        if self.number % 4 == 3:
            writing = f"{blocks} blocks, a shard half written"
            return self.reached(command, writing, lambda: self._count(_HALF_SHARDS), 0.001)
        time.sleep(seconds)
        return True

    def _count(self, pattern: str) -> int:
        return sum(1 for _ in self.output.glob(pattern))

    def _wait_for_time(self, command: Command) -> bool:
        seconds = self.haste * self.rng.uniform(1.0, max(1.5, self.bench.seconds))
        return self.reached(command, f"{seconds:.1f} s", lambda: time.monotonic() >= command.started + seconds)

    def wait_for_ingest(self, command: Command) -> bool:
        """Wait until the large scan is being ingested, and for less than that takes."""
        if not self.reached(command, "ingest", (self.output / f"{LARGE}.zarr.part").exists):
            return False
        time.sleep(self.rng.uniform(0, 0.2))
        return True

    def reached(
        self, command: Command, what: str, condition: Callable[[], object], poll_seconds: float = _POLL_SECONDS
    ) -> bool:
        self.at = what
        _wait_for(lambda: command.is_over or condition(), _HANG_SECONDS, poll_seconds)
        if command.is_over:
            self.missed = True
            self.notes.append("over before its fault")
        return not command.is_over

    def fault(self) -> None:
        """Note that it has happened, now."""
        self.fault_time = time.monotonic()

    def note_blocks(self) -> None:
        """Note which blocks are finished: from here on, none of them may be begun."""
        self.begun_before = len(self.begun())
        self.there = valid_blocks(self.output)

    def forget_blocks(self) -> None:
        (self.folder / "begun").unlink(missing_ok=True)

    def begun(self) -> list[Block]:
        log = self.folder / "begun"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(scan, int(y), int(x)) for scan, y, x in map(str.split, lines)]

    def end(self, command: Command, limit_seconds: float = _HANG_SECONDS) -> Ended:
        """Wait for its end, however it comes to it, and for the end of all its processes."""
        since = max(command.started, self.fault_time or 0.0)
        hung = not _wait_for(lambda: command.is_over, limit_seconds, 0.05)
        if hung:
            self._save_stacks(command)
            _kill(_marked(command.mark))
        code = command.process.wait()
        seconds = time.monotonic() - since
        self._wait_for_processes(command)
        lines = [line.strip() for line in command.said.read_text(errors="replace").splitlines()]
        ended = Ended(code, tuple(filter(None, lines)), seconds, hung)
        self.ended.append(ended)
        return ended

    def again(self) -> None:
        """The same command, which must finish."""
        ended = self.end(self.start())
        if ended.code != 0:
            self.wrong.append(f"the same command again: exit code {ended.code}")

    def expect_failure(self, ended: Ended, codes: tuple[int, ...] = (1,)) -> None:
        if ended.code not in codes:
            self.wrong.append(f"exit code {ended.code}")

    def _wait_for_processes(self, command: Command) -> None:
        if not _wait_for(lambda: not _marked(command.mark), _VANISH_SECONDS, 0.25):
            left = _marked(command.mark)
            self.processes += len(left)
            self.notes += [f"left over: {' '.join(_command_line(each))[:120]}" for each in left]
            _kill(left)

    def _save_stacks(self, command: Command) -> None:
        spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        with (self.bench.folder / f"hang-{self.kind}-{self.number}.txt").open("a") as stacks:
            for process in _marked(command.mark):
                stacks.write(f"\n== {process.pid} {' '.join(_command_line(process))[:200]}\n")
                stacks.flush()
                if spy:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        subprocess.run(
                            [spy, "dump", "--pid", str(process.pid)], stdout=stacks, stderr=stacks, timeout=20
                        )

    def _blocks_not_found(self) -> int:
        """Blocks that were there and that the last run says it did not find, where it coloured that scan."""
        missing = 0
        for stem in (LARGE, SMALL):
            with contextlib.suppress(OSError, ValueError, KeyError):
                sidecar = self.output / f"{stem}.color.json"
                work, begun = json.loads(sidecar.read_text())["work"], self.begun()[self.begun_before :]
                if any(block[0] == stem for block in begun):
                    missing += max(0, sum(block[0] == stem for block in self.there) - work["blocks_there"])
        return missing

    def result(self) -> Moment:
        begun = self.begun()
        lost = len(set(begun[self.begun_before :]) & self.there)
        if len(self.ended) > 1:
            lost = max(lost, self._blocks_not_found())
        extra = sorted(set(_results(self.output)) - set(_results(self.bench.undisturbed)))
        heard = [line for ended in self.ended for line in ended.lines if _is_odd(line)]
        return Moment(
            kind=self.kind,
            number=self.number,
            seed=self.seed,
            at=self.at,
            blocks_there=len(self.there),
            lost=lost,
            differing=differing_bytes(self.output, self.bench.undisturbed),
            repeated=sum(count - 1 for count in Counter(begun).values()),
            hangs=sum(ended.hung for ended in self.ended),
            odd_messages=tuple(heard),
            processes=self.processes,
            files=tuple(extra),
            seconds=round(sum(ended.seconds for ended in self.ended), 2),
            codes=tuple(ended.code for ended in self.ended),
            wrong=tuple(self.wrong),
            notes=tuple(self.notes),
        )


def play_worker(trial: Trial) -> None:
    command = trial.start()
    if trial.wait_for_moment(command) and trial.reached(command, f"{trial.at}, a worker", command.workers):
        worker = trial.rng.choice(command.workers())
        worker.kill()
        worker.wait(10)
        trial.fault()
        trial.note_blocks()
    ended = trial.end(command)
    if ended.code != 0:
        trial.notes.append("did not finish by itself")
        trial.again()


def play_client(trial: Trial, group: bool = False) -> None:
    command = trial.start()
    if trial.wait_for_moment(command):
        os.killpg(command.process.pid, signal.SIGKILL) if group else command.process.kill()
        trial.fault()
    trial.end(command)
    trial.note_blocks()
    trial.again()


def play_machine(trial: Trial) -> None:
    play_client(trial, group=True)


@contextlib.contextmanager
def _dask(trial: Trial, name: str, *words: str) -> Iterator[psutil.Process]:
    """``dask scheduler`` or ``dask worker``; killed at the end with all below it."""
    mark = uuid.uuid4().hex
    with (trial.folder / f"{name}.txt").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=trial.environment(mark),
            start_new_session=True,
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        _kill(_marked(mark))
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def _external(trial: Trial, name: str, port: int) -> Iterator[tuple[psutil.Process, psutil.Process]]:
    """A scheduler at ``port`` and one worker with two threads under a nanny, ready."""
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    worker = ("worker", address, "--nworkers", "1", "--nthreads", "2", "--nanny", "--no-dashboard")
    with (
        _dask(trial, f"{name}-scheduler", *scheduler) as a,
        _dask(trial, f"{name}-worker", *worker, "--local-directory", str(trial.folder / "dask")) as b,
    ):
        said = trial.folder / f"{name}-scheduler.txt"
        if not _wait_for(lambda: _answers(port) and "Register worker" in said.read_text(), 60, 0.1):
            trial.wrong.append("no external cluster")
        yield a, b


def play_scheduler(trial: Trial) -> None:
    port = _free_port()
    trial.words = ("--scheduler", f"tcp://127.0.0.1:{port}")
    with _external(trial, "first", port) as (scheduler, worker):
        command = trial.start()
        hit = trial.wait_for_moment(command)
        if hit:
            scheduler.kill()
            trial.fault()
            ended = trial.end(command, _LOST_SCHEDULER_SECONDS)
            if ended.code != 0:
                # Before it was reached, that it does not answer is bad usage; in the last moments nobody needs it.
                trial.expect_failure(ended, (1, 2))
            trial.notes.append(f"command over after {ended.seconds:.1f} s")
        else:
            trial.end(command)
        orphan = worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE
        trial.notes.append(f"orphaned worker {'still there' if orphan else 'gone'}")
        trial.note_blocks()
        if not hit:
            return
        with _external(trial, "second", port):
            trial.again()


@contextlib.contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", folder], check=True, capture_output=True)
    try:
        yield
    finally:
        if subprocess.run(["umount", folder], capture_output=True).returncode:
            subprocess.run(["umount", "-l", folder], check=True)


def can_mount(folder: Path) -> bool:
    try:
        with _mounted(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def _remount(folder: Path, size_bytes: int) -> None:
    """Larger, or smaller down to what it holds."""
    for size in range(size_bytes, size_bytes + 2**28, 2**20):
        if not subprocess.run(["mount", "-o", f"remount,size={size}", folder], capture_output=True).returncode:
            return


def play_disk(trial: Trial, of: int = 5) -> None:
    """The file system shrinks when ingest begins: a plan that sees so little room refuses before any work."""
    total = sum(path.stat().st_size for path in _results(trial.bench.undisturbed).values())
    share = (trial.number % of + trial.rng.uniform(0.1, 0.9)) / of
    with _mounted(trial.output):
        command = trial.start()
        if trial.reached(command, f"{share:.0%} of the bytes", (trial.output / f"{LARGE}.zarr.part").exists):
            _remount(trial.output, int(share * total))
            trial.fault()
        ended = trial.end(command)
        trial.note_blocks()
        if ended.code == 0:
            trial.notes.append("it was enough")
        else:
            trial.expect_failure(ended)
            if not any("disk full" in line for line in ended.lines):
                trial.wrong.append("no line says that the disk is full")
        _remount(trial.output, 2**30)
        trial.again()
        result = trial.folder / "copy"
        shutil.copytree(trial.output, result)
    trial.output.rmdir()
    result.rename(trial.output)


def _play_source(trial: Trial, harm: Callable[[Path], object], heal: Callable[[Path], object]) -> None:
    large, small = trial.sources
    command = trial.start()
    wait = trial.wait_for_ingest if trial.number % 2 else trial.wait_for_moment
    if wait(command):
        harm(large)
        trial.fault()
    harmed = file_sha256(large) if large.exists() else ""
    ended = trial.end(command)
    read_harmed = _ingested_sha256(trial.output) == harmed
    if ended.code == 0:
        trial.notes.append("read the other bytes as a whole" if read_harmed else "finished with the original's bytes")
        if not read_harmed and differing_bytes(trial.output, trial.bench.undisturbed):
            trial.wrong.append("finished, but not with the original's bytes")
    else:
        trial.notes += [line for line in ended.lines if line.startswith(("failed", "colorize-archive"))]
        trial.expect_failure(ended, (1, 2) if not (trial.output / "runs").exists() else (1,))
        if ended.code == 1 and (not ended.failed(large) or ended.failed(small)):
            trial.wrong.append("it is not the harmed scan, or not it alone, that failed")
    if read_harmed:
        trial.forget_blocks()  # they were another picture's
    else:
        trial.note_blocks()
    heal(large)
    trial.again()


def _ingested_sha256(output: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads((output / f"{LARGE}.zarr" / "zarr.json").read_text())["attributes"]["source"]["sha256"])
    return "none"


def play_vanishes(trial: Trial) -> None:
    away = trial.folder / "away.tif"
    _play_source(trial, lambda large: large.rename(away), lambda large: away.exists() and away.rename(large))


def play_changes(trial: Trial) -> None:
    def overwrite(large: Path) -> None:
        """The same picture upside down, written into the same file."""
        other = trial.folder / "other.tif"
        with large.open("r+b") as stream:
            stream.write(other.read_bytes())
            stream.truncate()

    original = trial.bench.sources[0]
    tifffile.imwrite(trial.folder / "other.tif", tifffile.imread(original)[::-1], tile=(512, 512), compression="zlib")
    _play_source(trial, overwrite, lambda large: shutil.copyfile(original, large))


def play_poisoned(trial: Trial) -> None:
    level = trial.number % _PLANTED
    lightness = float(lightness_from_samples(np.array([[level]], np.uint8))[0, 0])
    large, _ = trial.sources
    trial.at = f"pixel {trial.bench.planted_yx[level]}"
    trial.poison.write_text(repr(lightness))
    command = trial.start()
    trial.fault()
    ended = trial.end(command)
    trial.note_blocks()
    trial.expect_failure(ended)
    if sum("a poisoned tile" in line for line in ended.lines) != 1 or not ended.failed(large):
        trial.wrong.append("not one line that names the poisoned scan")
    if not (trial.output / f"{SMALL}.color.tif").exists():
        trial.wrong.append("the other scan did not finish")
    trial.poison.unlink()
    trial.again()


KINDS: dict[str, Callable[[Trial], None]] = {
    "worker": play_worker,
    "scheduler": play_scheduler,
    "client": play_client,
    "machine": play_machine,
    "disk": play_disk,
    "vanishes": play_vanishes,
    "changes": play_changes,
    "poisoned": play_poisoned,
}
_FEW = ("disk", "vanishes", "changes")


def run_moment(bench: Bench, kind: str, number: int, seed: int) -> Moment:
    """Play one moment in a folder of its own, which stays if something was not right.

    A run on a machine that is less busy now may be over before its moment: then again, sooner.
    """
    for haste in (1.0, 0.6, 0.3):
        trial = Trial(bench, kind, number, seed, bench.folder / f"{kind}-{number}", haste)
        shutil.rmtree(trial.folder, ignore_errors=True)
        trial.set_out()
        KINDS[kind](trial)
        moment = trial.result()
        if not moment.is_good:
            return moment
        shutil.rmtree(trial.folder)
        if not trial.missed:
            break
    return moment


def _known(path: Path) -> list[Moment]:
    if not path.exists():
        return []
    lists = ("odd_messages", "files", "codes", "wrong", "notes")
    return [Moment(**{**each, **{name: tuple(each[name]) for name in lists}}) for each in json.loads(path.read_text())]


def print_table(moments: list[Moment]) -> None:
    """Markdown, a line a kind, and under it what was not right."""
    print("\n| kind | moments | lost blocks | differing bytes | most blocks repeated | hangs | odd messages", end=" ")
    print("| processes | files | not right | median s to finish |\n|" + "---|" * 11)
    for kind in KINDS:
        these = [moment for moment in moments if moment.kind == kind]
        if these:
            sums = sum(m.lost for m in these), sum(m.differing for m in these)
            cells = [
                *(len(these), *sums, max(m.repeated for m in these), sum(m.hangs for m in these)),
                *(sum(len(m.odd_messages) for m in these), sum(m.processes for m in these)),
                *(sum(len(m.files) for m in these), sum(len(m.wrong) for m in these)),
                f"{statistics.median(m.seconds for m in these):.1f}",
            ]
            print(f"| {kind} | {' | '.join(map(str, cells))} |")
    print(f"\nAt most {3 * processors()} blocks are in flight.")
    for moment in moments:
        if not moment.is_good:
            print(f"not right: {_line(moment)}")


def _line(moment: Moment) -> str:
    counts = {name: value for name, value in asdict(moment).items() if value and name not in ("kind", "number", "seed")}
    return f"{moment.kind} {moment.number}: " + "; ".join(f"{name} {value}" for name, value in counts.items())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--moments", type=int, default=20, help="of the kinds that kill, and of the poisoned tile")
    parser.add_argument("--disk", type=int, default=5, help="moments of disk, vanishes and changes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=list(KINDS))
    parser.add_argument("--stride", type=int, default=STRIDE, help="smaller makes the colouring longer")
    parser.add_argument("--work", type=Path, default=Path("faults"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    path = arguments.work / "results.json"
    bench = prepare(arguments.work.absolute(), arguments.seed, arguments.stride)
    print(f"undisturbed: {bench.seconds:.1f} s, {len(valid_blocks(bench.undisturbed))} blocks", flush=True)
    moments = _known(path)
    done = {(moment.kind, moment.number, moment.seed) for moment in moments}
    for kind in [arguments.only] if arguments.only else KINDS:
        if kind == "disk" and not can_mount(arguments.work / "mount"):
            print("disk: left out, no tmpfs can be mounted here")
            continue
        for number in range(arguments.disk if kind in _FEW else arguments.moments):
            if (kind, number, arguments.seed) in done:
                continue
            moment = run_moment(bench, kind, number, arguments.seed)
            moments.append(moment)
            path.write_text(json.dumps([asdict(each) for each in moments], indent=2))
            print(_line(moment), flush=True)
    print_table(moments)


if __name__ == "__main__":
    main()
