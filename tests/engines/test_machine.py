"""What a container may use, as Linux tells it in both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from engines import machine
from engines.machine import memory_bytes, memory_left_bytes, no_semaphores, processors

GIB = 2**30
V2 = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:27 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 23 0:28 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)
HYBRID = V1 + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
ELSE = "23 1 254:1 / / rw - ext4 /dev/vda rw\n24 23 0:5 / /mnt/a\\040disk rw - tmpfs tmpfs rw\n"
NO_LIMIT = str(2**63 - 4096)


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)))


def root_of(folder: Path, cgroup: str, mounts: str, **files: str) -> Path:
    """A root directory as a container would see it; names of files with ``__`` for a slash."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(cgroup)
    (folder / "proc/self/mountinfo").write_text(ELSE + mounts)
    for name, text in files.items():
        path = folder / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return folder


def test_a_container_of_version_2_sees_its_group_as_the_root(tmp_path):
    files = {"memory_dot_max": str(GIB), "cpu_dot_max": "150000 100000"}
    root = root_of(tmp_path, "0::/\n", V2.format(root="/"), **files)
    assert memory_bytes(root) == GIB
    assert processors(root) == 2


def test_the_groups_around_it_count_too(tmp_path):
    files = {
        "memory_dot_max": "max",
        "a_dot_slice__memory_dot_max": str(GIB),
        "a_dot_slice__cpu_dot_max": "300000 100000",
        "a_dot_slice__b__memory_dot_max": str(3 * GIB),
        "a_dot_slice__b__memory_dot_high": "max",
        "a_dot_slice__b__cpu_dot_max": "max 100000",
    }
    root = root_of(tmp_path, "0::/a.slice/b\n", V2.format(root="/"), **files)
    assert memory_bytes(root) == GIB
    assert processors(root) == 3


def test_memory_above_which_it_is_slowed_down_is_a_limit(tmp_path):
    files = {"memory_dot_max": str(3 * GIB), "memory_dot_high": str(2 * GIB)}
    assert memory_bytes(root_of(tmp_path, "0::/\n", V2.format(root="/"), **files)) == 2 * GIB


@pytest.mark.parametrize("mounts", [V1, HYBRID])
@pytest.mark.parametrize(
    ("told", "shown"), [("/docker/1f", "/docker/1f"), ("/docker/1f", "/"), ("/outside/1f", "/pod")]
)
def test_version_1_by_whatever_name_it_tells_the_group(tmp_path, mounts, told, shown):
    """Mounted at the group itself, at the root of all of them, or told by a name that is not to be found inside."""
    inside = "docker__1f__" if shown == "/" else ""
    files = {
        f"memory__{inside}memory_dot_limit_in_bytes": str(GIB),
        f"cpu,cpuacct__{inside}cpu_dot_cfs_quota_us": "50000",
        f"cpu,cpuacct__{inside}cpu_dot_cfs_period_us": "100000",
    }
    if inside:
        files |= {"memory__memory_dot_limit_in_bytes": NO_LIMIT, "cpu,cpuacct__cpu_dot_cfs_quota_us": "-1"}
    cgroup = f"4:memory:{told}\n2:cpu,cpuacct:{told}\n0::/\n"
    root = root_of(tmp_path, cgroup, mounts.format(root=shown), **files)
    assert memory_bytes(root) == GIB
    assert processors(root) == 1


@pytest.mark.parametrize("memory", ["", "max", NO_LIMIT, "lots"])
def test_without_a_limit_it_is_the_machines(tmp_path, memory):
    root = root_of(tmp_path, "0::/\n", V2.format(root="/"), memory_dot_max=memory, cpu_dot_max="max 100000")
    assert memory_bytes(root) == psutil.virtual_memory().total
    assert processors(root) == 8
    assert memory_bytes(tmp_path / "no proc") == psutil.virtual_memory().total
    assert processors(tmp_path / "no proc") == 8


def test_what_is_left_counts_what_is_used_but_not_files_that_were_read(tmp_path):
    files = {
        "memory_dot_max": str(GIB),
        "memory_dot_current": str(GIB - 1000),
        "memory_dot_stat": "anon 5\ninactive_file 300",
    }
    assert memory_left_bytes(root_of(tmp_path, "0::/\n", V2.format(root="/"), **files)) == 1300


def test_semaphores_are_there_or_it_is_said_why(monkeypatch):
    assert no_semaphores() == ""

    def refused(_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(machine.multiprocessing, "get_context", refused)
    assert no_semaphores() == "Read-only file system"
