"""What this machine's GPU does with this project: python -m tests.benchmarks.gpu [--minutes 8] [--out FOLDER]

For any machine with an NVIDIA GPU: which libraries are there; parity of each backend, network and precision against
float32 on real tiles; tiles a second beside the arithmetic alone; a block made on the GPU and in the host's memory;
training steps a second; whole commands, 2048x4096 and a gigapixel, at strides 256, 128 and 64, with peaks of memory.

Prints Markdown tables, and keeps them with all figures in ``gpu.md`` and ``gpu.json`` in ``--out``, part by part as
they end. Parts that do not fit into ``--minutes`` any more are named as left out; what a machine lacks is said with its
reason. ``--rehearse`` goes through all parts with the processors' engines and small sizes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.support.files import write_json, write_whole
from tests.benchmarks.gpu.parts import PARTS, Row, Sizes

_LEAST_SECONDS = 5.0


def measure(name: str, sizes: Sizes, seconds: float) -> list[Row]:
    """The rows of one part, from a process of its own; what it printed before it was stopped counts."""
    if seconds < _LEAST_SECONDS:
        return [{"left out": "no time left; give more --minutes"}]
    words = [
        sys.executable,
        "-m",
        "tests.benchmarks.gpu",
        "--part",
        name,
        "--sizes",
        json.dumps(dataclasses.asdict(sizes)),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            said, errors = process.communicate()
            errors = f"stopped after {seconds:.0f} s; give more --minutes"
    rows: list[Row] = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    if not rows and not process.returncode:
        rows.append({"left out": "no engine of a GPU can run here; the first table says why"})
    if process.returncode:
        rows.append({"left out": (errors.strip().splitlines() or [f"ended with code {process.returncode}"])[-1]})
    return rows


def table(rows: list[Row]) -> str:
    """Rows of different columns as one Markdown table."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += ["| " + " | ".join(_cell(row.get(head)) for head in heads) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


def _one_part(name: str, sizes: str) -> None:
    for row in PARTS[name](Sizes(**{**json.loads(sizes), "batches": tuple(json.loads(sizes)["batches"])})):
        print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        _one_part(options.part, options.sizes)
        return
    ends = time.monotonic() + options.minutes * 60
    sizes = Sizes.small() if options.rehearse else Sizes()
    options.out.mkdir(parents=True, exist_ok=True)
    done: dict[str, list[Row]] = {}
    parts: list[str] = []
    for name in options.only:
        done[name] = measure(name, sizes, ends - time.monotonic())
        said = f"## {name}\n\n{(PARTS[name].__doc__ or '').splitlines()[0]}\n\n{table(done[name])}"
        print(said, flush=True)
        parts.append(said)
        write_json(options.out / "gpu.json", done)
        write_whole(options.out / "gpu.md", "\n".join(parts).encode())


if __name__ == "__main__":
    main()
