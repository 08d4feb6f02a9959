"""What a command and all processes below it connect to, and which names they ask for, watched from outside and within.

From outside by ``strace``, which sees every call whatever made it; from within by an audit hook in every Python process
(``sitecustomize``), which sees also the names that a daemon of the system would look up for it. Where ``strace`` is not
there, or may not be used, the hook is alone, and sees what Python does and not what libraries in C do.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.patience import PATIENCE_SECONDS

_CALLS = "connect,sendto,sendmsg,sendmmsg"
_INET = re.compile(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([\d.]+)"\)')
_INET6 = re.compile(r'sin6_port=htons\((\d+)\),.*?inet_pton\(AF_INET6, "([^"]+)"')
_UNIX = re.compile(r'sun_path=@?"([^"]*)"')
_NAMES = ("localhost", "ip6-localhost", "localhost.localdomain")
_DNS = 53
_LOG = "OUTWARD_LOG"

_HOOK = f'''
import os, sys

_EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
           "socket.gethostbyaddr", "socket.getnameinfo")


def _seen(event, arguments):
    if event in _EVENTS:
        what = arguments[1] if event.startswith(("socket.connect", "socket.send")) else arguments[0]
        host = what[0] if isinstance(what, tuple) and what else what
        if isinstance(host, bytes):
            host = host.decode("utf-8", "replace")
        if event.startswith(("socket.connect", "socket.send")) and not isinstance(what, tuple):
            return  # a socket of the file system, or one that is connected
        line = f"{{event}}\\t{{host}}\\t{{' '.join(sys.orig_argv)[:200]!r}}\\n"
        log = os.open(os.environ["{_LOG}"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, line.encode())
        os.close(log)


sys.addaudithook(_seen)
'''


@cache
def no_strace() -> str:
    """Why ``strace`` cannot watch here; empty where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-qq", "-e", "trace=connect", "true"], capture_output=True, text=True)
    return f"strace may not be used here ({tried.stderr.strip()[:200]})" if tried.returncode else ""


@dataclass(frozen=True)
class Seen:
    """A command's end, what it reached for beyond this machine, and how many calls were looked at."""

    code: int
    out: str
    err: str
    outside: tuple[str, ...]
    calls: int


class Watch:
    """Watches commands; ``folder`` keeps the hook and what was seen."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._commands = 0
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(_HOOK)

    @property
    def _hooked(self) -> Path:
        return self._folder / "hook.log"

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """``given``, with the hook."""
        path = os.pathsep.join(filter(None, [str(self._folder / "hook"), given.get("PYTHONPATH", "")]))
        return {**given, "PYTHONPATH": path, _LOG: str(self._hooked)}

    def words(self, words: list[str]) -> list[str]:
        """The command, under ``strace`` where that can be."""
        if no_strace():
            return words
        self._commands += 1
        log = self._folder / f"{self._commands}.strace"
        # Ten times as fast where the kernel itself filters the calls.
        return ["strace", "--seccomp-bpf", "-f", "-qq", "-e", f"trace={_CALLS}", "-o", str(log), *words]

    def run(self, words: list[str], given: Mapping[str, str], **options: object) -> Seen:
        """Run a command to its end."""
        done = subprocess.run(
            self.words(words),
            env=self.environment(given),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            **options,
        )
        return self.seen(done.returncode, done.stdout, done.stderr)

    def seen(self, code: int = 0, out: str = "", err: str = "") -> Seen:
        """All that was seen until now."""
        logs = sorted(self._folder.glob("*.strace"))
        traced = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        hooked = self._hooked.read_text(errors="replace").splitlines() if self._hooked.exists() else []
        outside = [line for line in traced if _is_outside(line)] + [line for line in hooked if _is_foreign(line)]
        calls = sum("sa_family=AF_INET" in line for line in traced) + len(hooked)
        return Seen(code, out, err, tuple(dict.fromkeys(outside)), calls)


def _is_outside(call: str) -> bool:
    """Whether a call of a trace is for another machine, or asks for a name."""
    found = [*_INET.findall(call), *_INET6.findall(call)]
    if any(int(port) == _DNS or not _is_loopback(host) for port, host in found):
        return True
    return any("resolve" in path.lower() for path in _UNIX.findall(call))


def _is_foreign(line: str) -> bool:
    """Whether an event is for another machine, or asks for its name."""
    host = line.split("\t")[1]
    return not (host in ("None", "", *_NAMES) or _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
