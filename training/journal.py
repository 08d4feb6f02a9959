"""The journal of a run: ``losses.jsonl``, TensorBoard's curves, and lines of progress with the time left.

``losses.csv`` is the same for spreadsheets, written whole whenever the run ends or stops.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

LOSSES = "losses.jsonl"
LOSSES_CSV = "losses.csv"
_TENSORBOARD = "tensorboard"
_LEAST_CHROMA = 0.2  # share of the truth's saturation below which a picture looks gray
_PATIENCE_STEPS = 500
_LINE_SECONDS = 10.0


class Journal:
    """Collects the losses of steps and writes their means to ``folder``, which only one of several processes has."""

    def __init__(self, folder: Path | None, step: int, report: Callable[[str], None]) -> None:
        self._report = report
        self._log, self._board = None, None
        if folder is not None:
            # TensorBoard takes a second to import.
            from torch.utils.tensorboard import SummaryWriter

            forget_after(folder / LOSSES, step)
            self._log = (folder / LOSSES).open("a", encoding="utf-8")
            self._board = SummaryWriter(str(folder / _TENSORBOARD), purge_step=step + 1)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._said = -math.inf
        self._had_colour, self._warned = False, False

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of one step, still on the device."""
        for name, value in losses.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Means since the last :meth:`write`; waits for the device."""
        if not self._sums:
            return {}
        values = torch.stack([self._sums[name].double() / self._counts[name] for name in self._sums]).tolist()
        return dict(zip(self._sums, values, strict=True))

    def write(self, step: int, epochs: float, seconds: float, more: Mapping[str, float]) -> dict[str, float]:
        """Write the means since the last call, and ``more`` such as the learning rate; returns the means."""
        means = self.means()
        self._sums, self._counts = {}, {}
        if self._log is None or self._board is None:
            return means
        values = {name: _short(value) for name, value in {**means, **more}.items()}
        line = {"step": step, "epoch": round(epochs, 3), "seconds": round(seconds, 1), **values}
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        return means

    def say(self, step: int, total_steps: int, epochs: float, seconds: float, means: Mapping[str, float]) -> None:
        """Report a line of progress with the time left, at most every ten seconds."""
        if time.monotonic() - self._said < _LINE_SECONDS and step < total_steps:
            return
        self._said = time.monotonic()
        left = _time(seconds / step * (total_steps - step)) if step else "?"
        figures = " ".join(f"{name} {_short(value)}" for name, value in means.items())
        self._report(f"step {step}/{total_steps} epoch {epochs:.1f}: {figures}; {left} left")

    def tell(self, line: str) -> None:
        """Report a line that nobody should miss."""
        self._report(line)

    def watch(self, step: int, means: Mapping[str, float]) -> None:
        """Warn if colours fade towards gray, a collapse that scores well in squared error."""
        chroma = means.get("chroma", math.inf)
        if chroma > 1.5 * _LEAST_CHROMA:
            self._had_colour = True
        # A new network may begin near gray: warn if colour fades, or if it does not come for a long time.
        elif chroma < _LEAST_CHROMA and (self._had_colour or (step >= _PATIENCE_STEPS and not self._warned)):
            self._had_colour, self._warned = False, True
            self._report(
                f"warning: step {step}: colours are {100 * chroma:.0f} % as strong as the truth's and the run may be "
                "collapsing to gray; raise vivid_weight or adversarial_weight, or lower content_weight"
            )

    def picture(self, name: str, rgb: Any, step: int) -> None:
        """Show an (H, W, 3) uint8 picture in TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, rgb, step, dataformats="HWC")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None and self._board is not None:
            self._log.close()
            self._board.close()


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def read_losses(path: Path) -> list[dict[str, float]]:
    """The lines of a ``losses.jsonl``, without an incomplete last one that a killed run may leave."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def write_csv(folder: Path) -> None:
    """Write ``losses.csv`` from ``losses.jsonl``: a row a line, a column a figure, empty where there is none.

    Raises OSError.
    """
    lines = read_losses(folder / LOSSES)
    columns = list(dict.fromkeys(name for line in lines for name in line))
    part = folder / f"{LOSSES_CSV}.part"
    with part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(lines)
    os.replace(part, folder / LOSSES_CSV)


def forget_after(path: Path, step: int) -> None:
    """Drop the lines after ``step``, because a resumed run repeats those steps."""
    if not path.is_file():
        return
    kept = [json.dumps(line) + "\n" for line in read_losses(path) if line["step"] <= step]
    part = path.with_suffix(".part")
    part.write_text("".join(kept), encoding="utf-8")
    os.replace(part, path)
