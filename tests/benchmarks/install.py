"""python -m tests.benchmarks.install

What the base install is made of: the packages that this project and its dependencies need, without any extra, as they
are installed beside this Python; the largest first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

_PROJECT = "colorize-archive"
_MOST_ROWS = 14


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _needed(name: str) -> Iterator[str]:
    """The packages that one package asks for on this machine, without its extras."""
    for text in metadata.requires(name) or ():
        asked = Requirement(text)
        if asked.marker is None or asked.marker.evaluate({"extra": ""}):
            yield _plain(asked.name)


def _size_bytes(name: str) -> int:
    files = metadata.files(name) or ()
    return sum(path.stat().st_size for path in (Path(str(each.locate())) for each in files) if path.is_file())


def base_install() -> dict[str, tuple[int, bool]]:
    """Size in bytes of every package of the base install, and whether the project asks for it itself."""
    direct = set(_needed(_PROJECT))
    waiting, found = list(direct), dict[str, tuple[int, bool]]()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            found[name] = _size_bytes(name), name in direct
        except metadata.PackageNotFoundError:
            continue
        waiting += _needed(name)
    return found


def main() -> None:
    """Print the table."""
    found = sorted(base_install().items(), key=lambda each: -each[1][0])
    print("| package | MB | asked for by |\n|---|---|---|")
    for name, (size, is_direct) in found[:_MOST_ROWS]:
        print(f"| {name} {metadata.version(name)} | {size / 1e6:.0f} | {'this project' if is_direct else 'others'} |")
    rest = found[_MOST_ROWS:]
    print(f"| {len(rest)} more | {sum(size for _, (size, _) in rest) / 1e6:.0f} | |")
    print(f"| all | {sum(size for _, (size, _) in found) / 1e6:.0f} | |")


if __name__ == "__main__":
    main()
