"""Whether expected errors are right on pictures that nothing was learnt from: coverage of intervals, and their order.

    python -m tests.benchmarks.doubt --data PHOTOGRAPHS [--model default free] [--limit 500]

For each held-out photograph, at a short side of 256 px: the CIEDE2000 that the model expects, the interval that is to
hold nine in ten, and what it really is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from engines.spec import find_model
from pipeline.palettes.doubt import GUESS_FROM, LIKELY_BELOW, Calibration
from training.data.pictures import Sample
from training.evaluation.subjects import find_subjects, spread
from training.palette.measured import errors_and_spreads


def _word(errors: np.ndarray, has_it: np.ndarray) -> str:
    return f"{has_it.mean():.0%}, {errors[has_it].mean():.1f}" if has_it.any() else "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", nargs="+", default=["default"])
    parser.add_argument("--limit", type=int, default=500)
    args = parser.parse_args()
    subjects = spread(find_subjects(args.data, False).measured, args.limit)
    pictures = [Sample(rgb, "rgb") for subject in subjects if (rgb := subject.read()) is not None]
    print(f"{len(pictures)} held-out pictures\n")
    print("| model | interval of 90 % holds | below it | above it | Spearman, by scan | by cell |", end="")
    print(" likely: share, mean CIEDE2000 | unsure | a guess |\n" + "|---" * 9 + "|")
    for name in args.model:
        model = find_model(name)
        assert model.card.palette is not None
        scans, cells = (Calibration(*line) for line in (model.card.palette.scan_doubt, model.card.palette.cell_doubt))
        found = errors_and_spreads(model, pictures)
        low, high = np.array([scans.interval(value) for value in found.scan_spreads]).T
        below, above = (found.scan_errors < low).mean(), (found.scan_errors > high).mean()
        expected = scans.expect(found.scan_spreads)
        by_cell = spearmanr(cells.expect(found.cell_spreads), found.cell_errors).statistic
        words = np.digitize(expected, [LIKELY_BELOW, GUESS_FROM])
        told = [_word(found.scan_errors, words == number) for number in range(3)]
        print(
            f"| {name} | {1 - below - above:.1%} | {below:.1%} | {above:.1%} | "
            f"{spearmanr(expected, found.scan_errors).statistic:.2f} | {by_cell:.2f} | {' | '.join(told)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
