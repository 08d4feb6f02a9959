"""Tables of the pages, made from the rows of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from training.evaluation import Row
from training.reproduce.page import Table

READING = (
    "MSE, PSNR and SSIM are of sRGB values in [0, 1] and favour gray. Below gray: by how much the mean CIEDE2000 is "
    "below that of the same pictures in gray. Colourfulness is Hasler and Süsstrunk's."
)


def measured(rows: Sequence[Row], reported: bool = False) -> Table:
    """A table with one line for each row; with ``reported``, the report's figures are beside ours."""
    head = ["", "CIEDE2000", "below gray", "MSE", "SSIM", "PSNR", "colourfulness", "of truth"]
    if reported:
        head[4:4] = ["MSE reported"]
        head[6:6] = ["SSIM reported"]
    lines = [head]
    for row in rows:
        line = [
            row.name,
            f"{row.ciede2000.mean:.2f}",
            f"{row.below_gray_percent.mean:.1f} %",
            f"{row.mse.mean:.4f}",
            f"{row.ssim.mean:.3f}",
            f"{row.psnr_db.mean:.1f} dB",
            f"{row.colourfulness.mean:.1f}",
            f"{row.colourfulness_of_truth.mean:.1f}",
        ]
        if reported:
            line[4:4] = ["" if row.origin.reported_mse is None else f"{row.origin.reported_mse:.4f}"]
            line[6:6] = ["" if row.origin.reported_ssim is None else f"{row.origin.reported_ssim:.4g}"]
        lines.append(line)
    return Table(lines)
