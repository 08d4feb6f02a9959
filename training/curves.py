"""``curves.png``: the usual curves of publications over the epochs, with units."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config import Recipe
from training.journal import LOSSES, read_losses

CURVES = "curves.png"
_PANEL_INCHES = (4.8, 3.6)
_HEADROOM = 0.04  # of the axes' height, above the highest point
_FEW_POINTS = 6  # curves with fewer points get markers; a line through a single point is invisible

_UNITS = {
    "l1": "mean absolute error",
    "mse": "mean squared error",
    "huber": "Huber loss",
    "ciede2000": "CIEDE2000 / 100",
}

Line = Mapping[str, float]


@dataclass(frozen=True)
class Panel:
    """One pair of axes: ``curves`` are names of losses with their labels; ``factor`` multiplies one of them."""

    title: str
    unit: str
    curves: dict[str, str]
    factor: Mapping[str, float]


def panels(recipe: Recipe) -> list[Panel]:
    """The panels for a run of ``recipe``: those whose losses it has."""
    unit = _UNITS[recipe.content_loss]
    if recipe.content_loss != "ciede2000":
        unit += f" of a*, b* / {recipe.chroma_scale:g}" if recipe.colour == "lab" else " of RGB in [-1, 1]"
    return [
        Panel("Pixel loss", unit, {"content": "training", "validation": "validation"}, {}),
        Panel("Generator", "weighted sum of its losses", {"total": "total"}, {}),
        Panel(
            "Adversarial losses",
            f"{recipe.adversarial_loss} loss",
            {"adversarial": "generator's term", "discriminator": "discriminator, real + generated"},
            # A training step uses half of the sum, which slows the discriminator (Isola et al. 2017, section 3.3).
            {"discriminator": 2.0},
        ),
        Panel(
            "Strength of colour",
            "mean saturation / the truth's",
            {"chroma": "training", "validation_chroma": "validation"},
            {},
        ),
    ]


def draw_curves(folder: Path, recipe: Recipe) -> None:
    """Draw the curves of the run in ``folder`` into its ``curves.png``."""
    draw({"": read_losses(folder / LOSSES)}, recipe, folder / CURVES)


def draw(runs: Mapping[str, Sequence[Line]], recipe: Recipe, path: Path) -> None:
    """Draw the losses of one or several named runs into the PNG ``path``.

    Raises
    ------
    OSError : the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    known = {name for lines in runs.values() for line in lines for name in line}
    if "adversarial" not in known:
        known -= {"total"}  # equals the pixel loss
    shown = [panel for panel in panels(recipe) if known & panel.curves.keys()]
    figure = Figure(figsize=(_PANEL_INCHES[0] * max(1, len(shown)), _PANEL_INCHES[1]), layout="constrained")
    for axes, panel in zip(figure.subplots(1, max(1, len(shown)), squeeze=False)[0], shown, strict=False):
        for name, lines in runs.items():
            _draw_panel(axes, panel, name, lines)
        axes.set(title=panel.title, xlabel="epoch", ylabel=panel.unit)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        low, high = axes.get_ylim()
        low = min(0, low)  # the hinge's losses may be negative
        axes.set_ylim(low, high + _HEADROOM * (high - low))
        axes.grid(alpha=0.3)
        # Below the axes: with many points, matplotlib searches for seconds for a free place among the curves.
        axes.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    if not any(runs):  # one run; several have their names in the legends
        figure.suptitle(recipe.name)
    part = path.with_name(f"{path.name}.part")
    FigureCanvasAgg(figure).print_png(str(part))
    os.replace(part, path)


def _draw_panel(axes: Any, panel: Panel, run: str, lines: Sequence[Line]) -> None:
    colour = None
    for key, label in panel.curves.items():
        points = [(line["epoch"], line[key] * panel.factor.get(key, 1.0)) for line in lines if key in line]
        if not points:
            continue
        is_validation = key.startswith("validation")
        (drawn,) = axes.plot(
            *zip(*points, strict=True),
            label=f"{run}, {label}" if run else label,
            linewidth=1,
            color=colour if run else None,
            linestyle="--" if is_validation else "-",
            marker="o" if is_validation or len(points) < _FEW_POINTS else None,
            markersize=3,
        )
        colour = drawn.get_color()
