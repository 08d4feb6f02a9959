"""python -m tests.benchmarks.same_bytes OTHER [SCAN ...]

Whether this checkout makes the bytes that another one, such as the release before, makes of the same scans. Both run
with this Python, so that libraries are the same; OTHER is a folder, such as one of ``git worktree add OTHER v0.6.0``.

Each setting of :data:`SETTINGS` colours all scans (those of the tests, where none is given) with both. A row is one
setting: files that are equal, that differ, and that only one of them has. Pictures and stores are compared by their
bytes; JSON without what a clock or a random number decides; the catalogue, records of runs and the contact sheet not
at all. The exit code is 1 where anything differs, and the names of what does are printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]
SETTINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "every format": ("--format", "tiff,cog,omezarr,jp2,png,jpeg,iiif"),
    "stride 128, average": ("--stride", "128", "--window", "average"),
    "another model, no anchor": ("--model", "pix2pix-unet", "--no-anchor"),
    "free, vivid": ("--model", "free", "--vivid", "0.5"),
    "quality": ("--quality", "1.05"),
    "identity, no metadata": ("--engine", "identity", "--no-metadata"),
}
# Times, random numbers, and hashes of JSON that has these in it.
_OF_A_CLOCK = {
    "attempt",
    "created",
    "eventDateTime",
    "eventIdentifierValue",
    "finished",
    "records_sha256",
    "seconds",
    "palette_sha256",
}
_HASH = re.compile(r"(?<=-)[0-9a-f]{8}(?=$|[/\"])")
_NOT_COMPARED = ("catalogue.sqlite", "index.html", "runs", "thumbs")


def _coloured(checkout: Path, scans: list[str], output: Path, words: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "200"}
    command = [sys.executable, "-m", "flows.cli", "run", *scans, "-o", str(output), "--workers", "1", *words]
    subprocess.run(command, check=True, cwd=checkout, env=environment, stderr=subprocess.DEVNULL)


def _steady(value: Any) -> Any:
    """JSON without what differs from run to run."""
    if isinstance(value, dict):
        steady = {key: each for key, each in value.items() if key not in _OF_A_CLOCK and not key.endswith("/zarr.json")}
        return {_HASH.sub("HASH", key): _steady(each) for key, each in steady.items()}
    return [_steady(each) for each in value] if isinstance(value, list) else value


def _hashes(output: Path) -> dict[str, str]:
    """By name; of versions' names without the hash of their settings, which has more in it from release to release."""
    return {_HASH.sub("HASH", str(path.relative_to(output))): _hash(path, output) for path in _compared(output)}


def _compared(output: Path) -> Iterator[Path]:
    for path in sorted(output.rglob("*")):
        if path.is_file() and not path.relative_to(output).parts[0].startswith(_NOT_COMPARED):
            yield path


def _hash(path: Path, output: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".json":
        text = _HASH.sub("HASH", data.decode().replace(str(output), "OUTPUT"))
        data = json.dumps(_steady(json.loads(text)), sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def different(mine: Path, theirs: Path) -> tuple[list[str], int]:
    """Names of the files that differ between two output folders, and how many are equal."""
    here, there = _hashes(mine), _hashes(theirs)
    names = [
        name if name in here and name in there else f"{name} (only {'here' if name in here else 'there'})"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    ]
    return names, sum(here.get(name) == value for name, value in there.items())


def compare(other: Path, scans: list[str], folder: Path) -> dict[str, list[str]]:
    """What differs, by setting."""
    found = {}
    for number, (setting, words) in enumerate(SETTINGS.items()):
        mine, theirs = folder / f"{number}-here", folder / f"{number}-there"
        _coloured(HERE, scans, mine, words)
        _coloured(other, scans, theirs, words)
        found[setting], equal = different(mine, theirs)
        print(f"| {setting} | {equal} | {len(found[setting])} |", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("scans", nargs="*", default=[str(HERE / "tests" / "scans")])
    given = parser.parse_args()
    print("| setting | equal files | different |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        found = compare(given.other.resolve(), given.scans, Path(folder))
    for setting, names in found.items():
        for name in names:
            print(f"{setting}: {name}")
    sys.exit(any(found.values()))


if __name__ == "__main__":
    main()
