"""One small scan, and what else there is to do, in every surrounding that a machine may have.

    python -m tests.benchmarks.surroundings [--only WORD] [--slow]

Prints a Markdown table: the surroundings, the command, what is right there, and what happened. Surroundings are made of
environment variables, name spaces (``unshare``), control groups and ``strace``'s faults, for the command alone; those
that this user or machine may not make are left out, and the table says why. ``--slow`` adds what takes minutes. Exit
code 1: something was not right. The cheap ones are tests (``tests/flows/test_server.py``, ``test_surroundings.py``).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from engines.machine import _groups
from tests.outward import no_strace

ROOT = Path(__file__).parents[2]
UP = ROOT / "deploy" / "up"
MIB = 2**20
_SECONDS = 240.0
_SLOW_SECONDS = 1200.0
PROXIES = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5h://127.0.0.1:9",
    "NO_PROXY": "[::1]/128",
}
PREFECT = {
    "PREFECT_SERVER_API_AUTH_STRING": "somebody:secret",
    "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://prefect@elsewhere.invalid/prefect",
    "PREFECT_API_SSL_CERT_FILE": "/gone.pem",
    "SSL_CERT_FILE": "/gone.pem",
    "PREFECT_LOGGING_SETTINGS_PATH": "/gone.yml",
    "PREFECT_PROFILE": "gone",
    "PREFECT_TASKS_DEFAULT_RETRIES": "3",
}
DASK = {
    "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
    "DASK_TEMPORARY_DIRECTORY": "/gone/dask",
    "DASK_DISTRIBUTED__WORKER__PRELOAD": '["gone_module"]',
    "DASK_DISTRIBUTED__NANNY__PRELOAD": '["gone_module"]',
    "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": '["gone_module"]',
    "DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION": "1 seconds",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    "DASK_SCHEDULER_ADDRESS": "tcp://elsewhere.invalid:8786",
}


class CannotError(Exception):
    """These surroundings cannot be made here; says why."""


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    said: str
    seconds: float

    @property
    def line(self) -> str:
        """Of what it said, the line that says most."""
        lines = [" ".join(line.split()) for line in self.said.splitlines() if line.strip()]
        wanted = ("colorize-archive:", "failed ", "ready", "waiting")
        return next((x for word in wanted for x in lines if x.startswith(word)), lines[-1] if lines else "")


@dataclass
class Place:
    """A folder for one row: the scan, a home, and the results."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    seconds: float = _SECONDS

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def prefect(self) -> Path:
        return self.home / ".prefect"

    def inside(self, script: str, *unshare: str) -> None:
        """Run the command in name spaces of its own, after a shell's ``script`` as root."""
        if (
            shutil.which("unshare") is None
            or subprocess.run(["unshare", *unshare, "true"], capture_output=True).returncode
        ):
            raise CannotError("no right to make name spaces (unshare)")
        self.words = ["unshare", *unshare, "sh", "-ec", f'{script}\nexec "$@"', "sh", *self.words]

    def faulty(self, fault: str) -> None:
        """Have the system refuse calls: as ``strace -e inject=``."""
        if why := no_strace():
            raise CannotError(why)
        calls = fault.partition(":")[0]
        self.words = [
            "strace",
            "--seccomp-bpf",
            "-f",
            "-qq",
            "-o",
            os.devnull,
            "-e",
            f"trace={calls}",
            "-e",
            f"inject={fault}",
            *self.words,
        ]


@contextlib.contextmanager
def group(place: Place, controller: str, **limits: object) -> Iterator[None]:
    """Run the command in a control group of its own, inside that of this process; files by either version's names."""
    around = next(_groups(controller, Path("/")), None)
    if around is None:
        raise CannotError(f"no control group for {controller}")
    folder = around / f"surroundings-{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder.mkdir()
        known = {name.replace("__", "."): value for name, value in limits.items()}
        files = {folder / name: value for name, value in known.items() if (folder / name).exists()}
        if not files:
            raise CannotError(f"{controller} cannot be limited in {around}")
        for path, value in files.items():
            path.write_text(str(value))
    except OSError as error:
        raise CannotError(f"no right to make control groups ({error.strerror})") from error
    place.words = ["sh", "-ec", f'echo $$ > {folder}/cgroup.procs\nexec "$@"', "sh", *place.words]
    try:
        yield
    finally:
        for _ in range(50):  # its processes are gone a moment after the command
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.1)


Make = Callable[[Place], contextlib.AbstractContextManager[None] | None]


@dataclass(frozen=True)
class Row:
    """Surroundings, and what is right in them.

    Attributes
    ----------
    name : of the surroundings, for the table
    make : makes them for a place's command
    command : "run", "up" (deploy/up, started and stopped), "engines" or "train"
    code, says : the exit code that is right, and a pattern in what is said
    within : seconds that it may take
    is_slow : whether it takes minutes
    also : what else is right, asked of the row's folder
    """

    name: str
    make: Make
    command: str = "run"
    code: int = 0
    says: str = ""
    within: float = _SECONDS
    is_slow: bool = False
    also: Callable[[Path], bool] = lambda _: True


def plain(_: Place) -> None:
    """As the machine is."""


def proxies(place: Place) -> None:
    place.environment |= PROXIES


def site_prefect(place: Place) -> None:
    place.environment |= PREFECT
    (place.folder / "prefect.toml").write_text('[server.api]\nauth_string = "somebody:secret"\n')


def site_dask(place: Place) -> None:
    place.environment |= DASK


def damaged_database(place: Place) -> None:
    place.prefect.mkdir(parents=True)
    (place.prefect / "prefect.db").write_bytes(b"This is no database.\n" * 300)


def newer_database(place: Place) -> None:
    place.prefect.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(place.prefect / "prefect.db")) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
        database.commit()


def readonly_home(place: Place) -> None:
    place.inside(f"mount -t tmpfs -o ro tmpfs {place.home}", "--mount")


def missing_home(place: Place) -> None:
    place.environment["HOME"] = "/proc/none/home"  # where not even root may make one


def nobodys_home(place: Place) -> None:
    """As in a container that is started for a number that no user has."""
    if os.geteuid() or shutil.which("setpriv") is None:
        raise CannotError("only root may become another user")
    del place.environment["HOME"]
    for path in [place.folder, *place.folder.rglob("*")]:
        os.chown(path, 54321, 54321)
    place.words = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", *place.words]
    python = Path(sys.executable).resolve()
    closed = [folder for folder in reversed(python.parents) if not folder.stat().st_mode & 1]
    if closed:  # such as root's own: in the command's view it has nothing but the way to this Python
        way = closed[0] / python.relative_to(closed[0]).parts[0]
        opened = f"mount --bind {way} /mnt; mount -t tmpfs -o mode=755 tmpfs {closed[0]}"
        place.inside(f"{opened}; mkdir {way}; mount --move /mnt {way}", "--mount")


def missing_tmp(place: Place) -> None:
    place.environment["TMPDIR"] = str(place.folder / "gone")


def readonly_tmp(place: Place) -> None:
    """All but the row's own folder, should that lie there."""
    place.environment.pop("TMPDIR", None)
    closed = "; ".join(f"mount --bind {tmp} {tmp}; mount -o remount,bind,ro {tmp}" for tmp in ("/tmp", "/var/tmp"))
    place.inside(f"mount --bind {place.folder} /mnt; {closed}; mount --bind /mnt {place.folder}", "--mount")


def full_tmp(place: Place) -> None:
    _elsewhere(place)
    place.inside("mount -t tmpfs -o size=1m tmpfs /tmp; mount -t tmpfs -o size=1m tmpfs /var/tmp", "--mount")


def _elsewhere(place: Place) -> None:
    if place.folder.is_relative_to("/tmp") or sys.prefix.startswith(("/tmp", "/var/tmp")):
        raise CannotError("this Python, or the folder of the rows, lies below /tmp; give --folder")
    place.environment.pop("TMPDIR", None)


def no_shared_memory(place: Place) -> None:
    place.inside("mount -t tmpfs -o ro tmpfs /dev/shm", "--mount")


def no_network(place: Place) -> None:
    place.inside(f"{sys.executable} -c '{_LOOPBACK_UP}'", "--net")


# ifconfig lo up, where there is no program for it (linux/sockios.h: SIOCSIFFLAGS; IFF_UP and IFF_RUNNING).
_LOOPBACK_UP = 'import fcntl,socket,struct; fcntl.ioctl(socket.socket(),0x8914,struct.pack("16sh",b"lo",0x41))'


def unknown_name(place: Place) -> None:
    place.inside(
        f"echo nowhere-to-be-found > /proc/sys/kernel/hostname; {sys.executable} -c '{_LOOPBACK_UP}'", "--uts", "--net"
    )


def one_processor(place: Place) -> None:
    if shutil.which("taskset") is None:
        raise CannotError("taskset is not installed")
    place.words = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), *place.words]


def half_a_processor(place: Place) -> contextlib.AbstractContextManager[None]:
    return group(place, "cpu", cpu__max="50000 100000", cpu__cfs_quota_us=50000)


def starved(place: Place) -> contextlib.AbstractContextManager[None]:
    return group(place, "cpu", cpu__max="8000 100000", cpu__cfs_quota_us=8000)


def small_container(place: Place) -> contextlib.AbstractContextManager[None]:
    return group(place, "memory", memory__max=900 * MIB, memory__limit_in_bytes=900 * MIB)


def modest_container(place: Place) -> contextlib.AbstractContextManager[None]:
    return group(place, "memory", memory__max=2048 * MIB, memory__limit_in_bytes=2048 * MIB)


def believed_container(place: Place) -> contextlib.AbstractContextManager[None]:
    place.words += ["--limit-memory", "16GiB"]
    return modest_container(place)


def no_hard_links(place: Place) -> None:
    """Watched, not made: semaphores are links in ``/dev/shm``, which is never such a file system."""
    if why := no_strace():
        raise CannotError(why)
    log = str(place.folder / "links.strace")
    place.words = ["strace", "--seccomp-bpf", "-f", "-qq", "-o", log, "-e", "trace=link,linkat", *place.words]


def _asks_for_no_link(folder: Path) -> bool:
    links = (folder / "links.strace").read_text(errors="replace").splitlines()
    return bool(links) and all("/dev/shm/" in call for call in links if "link" in call)


def no_locks(place: Place) -> None:
    place.faulty("flock:error=ENOLCK")


def few_files(place: Place) -> None:
    place.words = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *place.words]


def private_umask(place: Place) -> None:
    place.words = ["sh", "-c", 'umask 077; exec "$@"', "sh", *place.words]


def broken_dask_file(place: Place) -> None:
    (place.home / ".config" / "dask").mkdir(parents=True)
    (place.home / ".config" / "dask" / "site.yaml").write_text("distributed: [unclosed\n")


NO_ROOM = "GiB that this machine, or its container, has"
ROWS = (
    Row("as the machine is", plain),
    Row("proxies for all, a SOCKS proxy, an exception that httpx cannot read", proxies),
    Row("proxies for all, a SOCKS proxy, an exception that httpx cannot read", proxies, "up"),
    Row("a site's Prefect: database elsewhere, passwords, certificates that are gone", site_prefect),
    Row("a site's Dask: encryption, folders and modules that are gone, workers that leave", site_dask),
    Row("a file of the user's Dask configuration is broken", broken_dask_file, code=1, says="site.yaml"),
    Row("Prefect's database in the home is damaged", damaged_database),
    Row("Prefect's database in the home is damaged", damaged_database, "up", code=1, says="file is not a database"),
    Row("Prefect's database is of a later Prefect", newer_database),
    Row("Prefect's database is of a later Prefect", newer_database, "up", code=1, says="ffffffffffff"),
    Row("HOME cannot be written", readonly_home),
    Row("HOME cannot be written", readonly_home, "up", code=2, says="Read-only file system"),
    Row("HOME is not there", missing_home),
    Row("HOME is not there", missing_home, "engines"),
    Row("HOME is not there", missing_home, "train"),
    Row("HOME is not there", missing_home, "up", code=2, says="^colorize-archive: /proc/none: "),
    Row("a user without a name and a HOME", nobodys_home),
    Row("a user without a name and a HOME", nobodys_home, "engines"),
    Row("a user without a name and a HOME", nobodys_home, "up", code=2, says="give --home"),
    Row("TMPDIR is not there", missing_tmp),
    Row("/tmp and /var/tmp cannot be written", readonly_tmp),
    Row("/tmp and /var/tmp are full", full_tmp),
    Row("no /dev/shm", no_shared_memory, code=2, says="^colorize-archive: /dev/shm: ", within=20),
    Row("no /dev/shm", no_shared_memory, "train"),
    Row("no network but loopback", no_network),
    Row("no network but loopback, and the machine's own name is unknown", unknown_name, "up"),
    Row("one processor", one_processor),
    Row("half a processor (--cpus=0.5)", half_a_processor),
    Row(
        "a twelfth of a processor, as beside another program",
        starved,
        within=_SLOW_SECONDS,
        is_slow=True,
    ),
    Row(
        "a twelfth of a processor, as beside another program",
        starved,
        "up",
        says="has not started in",
        within=_SLOW_SECONDS,
        is_slow=True,
    ),
    Row("a container of 900 MiB", small_container, code=2, says=NO_ROOM, within=20),
    Row("a container of 2 GiB", modest_container),
    Row("a container of 2 GiB, and --limit-memory 16GiB", believed_container),
    Row("a file system without hard links: none is asked for", no_hard_links, also=_asks_for_no_link),
    Row("a file system without locks", no_locks, code=2, says="lock"),
    Row("256 open files a process", few_files),
    Row("files that only their owner may read (umask 077)", private_umask),
)


def commands(place: Place, port: int) -> Mapping[str, list[str]]:
    """What is run in a row, by its name."""
    out = str(place.folder / "out")
    run = [
        sys.executable,
        "-m",
        "flows.cli",
        "run",
        str(place.folder / "scan.png"),
        "-o",
        out,
        "--engine",
        "identity",
    ]
    train = ["train", str(place.folder / "tiny.yaml"), "--data", str(place.folder / "photographs"), "--out", out]
    return {
        "run": run,
        "engines": [sys.executable, "-m", "flows.cli", "engines", "list"],
        "train": [sys.executable, "-m", "flows.cli", *train],
        "up": [sys.executable, str(UP), "--port", str(port), "--detach"],
    }


def _fill(place: Place) -> None:
    rng = np.random.default_rng(1)
    place.home.mkdir(parents=True)
    cv2.imwrite(str(place.folder / "scan.png"), rng.integers(0, 255, (300, 400), dtype=np.uint8))
    (place.folder / "photographs").mkdir()
    for number in range(20):
        bgr = cv2.resize(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8), (48, 40), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(place.folder / "photographs" / f"{number:02}.png"), bgr)
    (place.folder / "tiny.yaml").write_text(
        "name: tiny\ngenerator: unet\ngenerator_options: {width: 8, depth: 3}\nprecision: 32-true\nwarmup_steps: 1\n"
        "checkpoint_steps: 2\nsmallest_crop_px: 16\nphases:\n  - {steps: 3, crop_px: 32, batch: 2}\n"
    )


def _environment(place: Place) -> dict[str, str]:
    ours = ("PREFECT_", "DASK_", "XDG_", "COLORIZE_ARCHIVE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    return kept | {"HOME": str(place.home), "PYTHONPATH": path, "COLUMNS": "200"}


def run_row(row: Row, folder: Path) -> Ran:
    """Make the surroundings, run the command in them, and end what it started. Raises CannotError."""
    place = Place(folder)
    _fill(place)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    place.environment = _environment(place)
    place.words = list(commands(place, port)[row.command])
    with row.make(place) or contextlib.nullcontext():
        ran = _ran(place.words, place, row.within)
        if row.command == "up":
            home = place.environment.get("HOME", str(place.home))
            ended = _ran([sys.executable, str(UP), "--stop"], Place(folder, {**_environment(place), "HOME": home}), 120)
            if row.code == 0 and "nothing of it runs any more" not in ended.said:
                return Ran(99, f"{ran.said}\n{ended.said}", ran.seconds)
    return ran


def _ran(words: list[str], place: Place, within: float) -> Ran:
    began = time.monotonic()
    try:
        done = subprocess.run(
            words, env=place.environment, cwd=place.folder, capture_output=True, text=True, timeout=within + 60
        )
        code, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        code = 124
        said = "".join((each or b"").decode(errors="replace") for each in (late.stdout, late.stderr))
    return Ran(code, said, time.monotonic() - began)


def is_right(row: Row, ran: Ran, folder: Path) -> bool:
    """Whether it ended as it should, in time, without a traceback, and with the result where there has to be one."""
    well = ran.code == row.code and ran.seconds <= row.within and "Traceback" not in ran.said
    has_result = (folder / "out" / "scan.color.tif").is_file()
    has_said = re.search(row.says, ran.said, re.MULTILINE) is not None
    return well and has_said and row.also(folder) and (row.command != "run" or has_result == (row.code == 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose surroundings or command have this word")
    parser.add_argument("--slow", action="store_true", help="those that take minutes too")
    parser.add_argument("--folder", type=Path, help="where the rows work; by default that of temporary files")
    asked = parser.parse_args()
    print("| surroundings | command | right is | seconds | what happened |\n|---|---|---|---|---|")
    wrong = 0
    for row in ROWS:
        name = row.name
        if asked.only not in f"{name} {row.command}" or (row.is_slow and not asked.slow):
            continue
        folder = Path(tempfile.mkdtemp(prefix="surroundings-", dir=asked.folder))
        right = "done" if row.code == 0 else f"one line, exit code {row.code}"
        try:
            ran = run_row(row, folder)
            happened = "right" if is_right(row, ran, folder) else f"**wrong** (exit code {ran.code})"
            wrong += happened != "right"
            said = ran.line.replace(str(folder), "...").replace("|", "\\|")
            print(f"| {name} | {row.command} | {right} | {ran.seconds:.0f} | {happened}: `{said[:220]}` |", flush=True)
            if happened != "right":
                print(ran.said, file=sys.stderr)
        except CannotError as error:
            print(f"| {name} | {row.command} | {right} | | left out: {error} |", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
