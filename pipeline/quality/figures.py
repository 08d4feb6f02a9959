"""The figures of a result. Apart from what measures them, so that who prints them loads no arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.palettes.doubt import Doubt


@dataclass(frozen=True)
class Quality:
    """Figures of one version.

    Attributes
    ----------
    seam, seam_edge, seam_patch : see :mod:`pipeline.quality.seams`; None if the scan is too small to have a grid
    disagreement_mean, disagreement_p95 : spread of the tiles (:mod:`pipeline.tiling.overlap_stats`), CIELAB units
    strides_px : the strides used, coarsest first
    tiles : number of tiles of all strides together
    wanted : the seam score that finer tiles should reach, 0 if none was requested
    doubt : expected error of the colours, for models that estimate it
    """

    seam: float | None
    seam_edge: float | None
    seam_patch: float | None
    disagreement_mean: float
    disagreement_p95: float
    strides_px: tuple[tuple[int, int], ...]
    tiles: int = 0
    wanted: float = 0.0
    doubt: Doubt | None = None

    def to_json(self) -> dict[str, Any]:
        doubt = self.doubt.to_json() if self.doubt else None
        return {**asdict(self), "strides_px": [list(stride) for stride in self.strides_px], "doubt": doubt}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Quality:
        """A quality from the output of :meth:`to_json`. Raises KeyError, TypeError for anything else."""
        doubt = Doubt.from_json(values["doubt"]) if values.get("doubt") else None
        strides = tuple((int(y), int(x)) for y, x in values["strides_px"])
        return cls(**{**values, "strides_px": strides, "doubt": doubt})

    def __str__(self) -> str:
        seam = "no grid to see" if self.seam is None else f"seam {self.seam:.2f}"
        missed = f" (more than the {self.wanted:g} asked for)" if self.is_missed else ""
        return f"{seam}{missed}, {self.doubt.word if self.doubt else f'disagreement {self.disagreement_mean:.1f}'}"

    @property
    def is_missed(self) -> bool:
        """True if finer tiles did not bring the score down to the requested one."""
        return bool(self.wanted and self.seam is not None and self.seam > self.wanted)
