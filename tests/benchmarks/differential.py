"""Hundreds of kinds of file, each as light as other programs say it is.

    python -m tests.benchmarks.differential [--family WORD] [--table FILE] [--keep FOLDER]

Makes the files of `variants`, reads each with the project's readers and with the programs of `referees`, and compares
L*. Where the samples are known that were written, they are a referee too. Prints a table of families and lists each
disagreement. A disagreement is one of `EXPLAINED`, by the referee and by what is special about the file, or it is a
fault: then the exit code is 1.

What counts as a disagreement: a referee whose lightness is another than ours; and a file that is refused here while a
referee reads it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.errors import ScanError
from tests.benchmarks.odd_files import Lightness, lightness, ours
from tests.benchmarks.referees import REFEREES
from tests.benchmarks.variants import Variant, all_variants

OURS, WRITTEN = "here", "as written"
_NO_COUNTS = "takes strips and tiles with a count of 0 for empty; libtiff, in Pillow, computes it"
_OPACITY = "does not divide out the opacity that colours were multiplied with"
_FIRST_COPY = "opens the first directory, which says that it is a smaller copy of another"
_FULL_PAPER = "does not look at DotRange, by which full scale is no ink here (TIFF 6.0, section 16)"
_TURNS = "turns the picture as its orientation says; here pixels stay as they are stored, and so does the orientation"
_DEEP_PLANAR = "takes planes of 16 bits for something else"
_OTHER_PROFILE = "does not apply a profile of RGB to gray; R, G and B are that one sample, as scanners write it"
_NAMES = "its libjpeg (of the IJG, version 9) goes by the names of components before Adobe's and JFIF's segments"
_NO_LAB = "gives L*, a* and b*, or what it takes for them, as if they were red, green and blue"
_RARE = "gives black for a compression that it does not know"
_TRANSPARENT = "shows something else where the transparent colour is"
_MAXIMUM = "gives samples as they are stored, whatever the header says is the largest"
_SEVERAL = "takes the channels behind gray for green and blue, or for opacity"
EXPLAINED: dict[tuple[str, str], str] = {
    ("GDAL", "counts"): _NO_COUNTS,
    ("libvips", "counts"): _NO_COUNTS,
    ("tifffile", "counts"): "computes no counts but those of a fax in one strip",
    ("Pillow", "sparse"): "reads what lies at the beginning of the file for a tile that has no place",
    ("Pillow", "no photometric"): "takes 0 for white without PhotometricInterpretation; the others 0 for black",
    ("Pillow", "deep negative"): "does not invert 16 bits in which 0 is white",
    ("Pillow", "narrow RGB"): "before its release 13 takes PCX rows of one RGB pixel for longer ones",
    ("OpenCV", "deep negative"): "does not invert more than 8 bits in which 0 is white",
    ("Pillow", "deep planar"): _DEEP_PLANAR,
    ("OpenCV", "deep planar"): _DEEP_PLANAR,
    ("libvips", "planar gray"): "takes planes of gray and more for pixels",
    ("libvips", "several extra channels"): _SEVERAL,
    ("tifffile", "several extra channels"): _SEVERAL,
    (WRITTEN, "several extra channels of gray"): (
        "three channels and more are colour also where the file says gray: so GDAL writes RGB of 16 bits"
    ),
    ("Pillow", "premultiplied"): _OPACITY,
    ("libvips", "premultiplied"): _OPACITY,
    ("GDAL", "premultiplied"): _OPACITY,
    ("OpenCV", "premultiplied"): _OPACITY,
    ("OpenCV", "extra channel"): "multiplies with opacity, and mixes up the channels of gray with more",
    ("OpenCV", "rare codec"): _RARE,
    ("libvips", "rare codec"): _RARE,
    ("Pillow", "8-bit palette"): "takes the colours of a palette for 16-bit ones though all of them are below 256",
    ("OpenCV", "1-bit palette"): "takes the two colours for black and white",
    ("Pillow", "subsampled"): "does not know how YCbCr without JPEG lies in the file",
    ("Pillow", "video range"): "does not look at ReferenceBlackWhite",
    ("libvips", "1 x 1"): "takes YCbCr that is not subsampled for RGB",
    ("libvips", "video range"): "takes YCbCr that is not subsampled for RGB",
    ("GDAL", "JPEG tiles"): "enlarges chroma in the last column with what fills up the tile",
    ("Pillow", "paper is full"): _FULL_PAPER,
    ("libvips", "paper is full"): _FULL_PAPER,
    ("GDAL", "paper is full"): _FULL_PAPER,
    ("OpenCV", "paper is full"): _FULL_PAPER,
    ("tifffile", "paper is full"): _FULL_PAPER,
    ("GDAL", "L*a*b*"): _NO_LAB,
    ("libvips", "ICC L*a*b*"): _NO_LAB,
    ("libvips", "ITU L*a*b*"): _NO_LAB,
    ("OpenCV", "CIE L*a*b*"): "shows L*a*b* as a certain screen would",
    ("Pillow", "turned"): _TURNS,
    ("OpenCV", "turned"): _TURNS,
    ("libvips", "turned AVIF"): _TURNS,
    ("Pillow", "int8"): "takes signed samples for unsigned ones",
    ("GDAL", "declared ends"): "its API gives samples, not what SMinSampleValue and SMaxSampleValue make of them",
    ("libvips", "profile of another space"): _OTHER_PROFILE,
    ("OpenCV", "profile of another space"): _OTHER_PROFILE,
    ("Pillow", "smaller copy first"): _FIRST_COPY,
    ("libvips", "smaller copy first"): _FIRST_COPY,
    ("GDAL", "smaller copy first"): _FIRST_COPY,
    ("OpenCV", "smaller copy first"): _FIRST_COPY,
    ("GDAL", "names of components"): _NAMES,
    ("libvips", "gamma"): "gives samples, without a word of PNG's gAMA and cHRM",
    ("GDAL", "no end"): "its faster way through a small PNG gives what lies in memory where the file ends",
    ("OpenCV", "OS/2"): "takes the three channels of such a header's colours for others",
    ("GDAL", "odd masks"): "does not look at the masks of 32 bits",
    ("OpenCV", "odd masks"): "does not look at the masks of 32 bits",
    ("OpenCV", "colour key"): _TRANSPARENT,
    ("libvips", "colour key"): _TRANSPARENT,
    ("GDAL", "odd maximum"): _MAXIMUM,
    ("OpenCV", "odd maximum"): _MAXIMUM,
    ("Pillow", "odd depth of JPEG 2000"): "scales fewer than 8 bits in another way than to full scale",
    ("OpenCV", "odd depth of JPEG 2000"): "gives samples of 10 and 12 bits as they are stored, in 16",
    ("GDAL", "reordered channels"): "its API gives channels as they are stored, and says which is which",
    ("Pillow", "reordered channels"): "does not look at the box that says which channel is which",
    ("Pillow", "palette of JPEG 2000"): "gives the numbers of colours for colours",
    ("OpenCV", "palette of JPEG 2000"): "gives the numbers of colours for colours",
    ("GDAL", "sYCC"): "its API gives Y, Cb and Cr",
    ("OpenCV", "deep AVIF"): "gives samples of 10 and 12 bits as they are stored, in 16",
    ("GDAL", "bool"): "its API gives 0 and 1",
    (OURS, "checksum"): "zlib's checksum says that the data are damaged",
    (OURS, "PAM"): "PAM: refused in one line, with what to do; no scanner and no archive's program writes it",
    (
        OURS,
        "SGI of 16 bits",
    ): "refused in one line, with what to do: GDAL does not decode it, Pillow drops half its bits",
    (OURS, "masks of the upper bytes"): "refused in one line, with what to do: GDAL does not look at the masks",
}
"""Who is not followed in what kind of file, and why. ``here``: it is refused, though others read it."""


_INTRODUCTION = """# How light files are, here and elsewhere

`python -m tests.benchmarks.differential --table docs/differential.md` makes small files of many kinds
and compares L* with what other programs make of them. "Two or more agree" and "one agrees" leave out the library
that decodes here too: tifffile of TIFFs, GDAL of most others. Of each program: how many of the files that it reads
are as light as here. "As written": as the samples that were written, where nothing is lost. Below, all
disagreements with their reasons; one without a reason is a fault. Nothing but what was written tells how light JPEG
XL and JPEG-LS are: no other program at hand reads them.

"""


@dataclass
class Outcome:
    """What became of a variant.

    Attributes
    ----------
    agree, differ : referees by name; of the latter how far off they are, or what they say instead
    refused : the one line with which it is refused here
    unexplained : those of ``differ``, or `OURS`, that nobody explained
    reasons : of the others
    """

    variant: Variant
    agree: list[str] = field(default_factory=list)
    differ: dict[str, str] = field(default_factory=dict)
    refused: str = ""
    unexplained: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


def judged(variant: Variant, folder: Path) -> Outcome:
    """Raises what is no ScanError."""
    outcome = Outcome(variant)
    path = variant.put(folder)
    answers = dict(_answers(path, variant))
    try:
        found, _ = ours(path)
    except ScanError as error:
        outcome.refused = str(error).removeprefix(f"{path}: ")
        outcome.agree = []
        if answers:
            _explain(outcome, OURS)
        return outcome
    for name, expected in answers.items():
        if expected.shape != found.shape:
            outcome.differ[name] = f"{expected.shape[1]} x {expected.shape[0]} pixels"
            continue
        off = float(np.abs(expected - found).max())
        if off <= variant.near:
            outcome.agree.append(name)
        else:
            outcome.differ[name] = f"{off:.1f} L*"
    for name in outcome.differ:
        _explain(outcome, name)
    return outcome


def _answers(path: Path, variant: Variant) -> Iterator[tuple[str, Lightness]]:
    for name, referee in REFEREES.items():
        if name == "OpenCV" and variant.kinds & {"profile", "gamma"}:
            continue  # it gives samples, without a word of what they mean
        with contextlib.suppress(Exception):  # as each library has it: no answer
            yield name, referee(path)
    if variant.written is not None:
        yield WRITTEN, lightness(variant.written)


def _explain(outcome: Outcome, name: str) -> None:
    found = [reason for (who, kind), reason in EXPLAINED.items() if who == name and kind in outcome.variant.kinds]
    if found and (name == OURS or outcome.agree):
        outcome.reasons[name] = found[0]
    else:
        outcome.unexplained.append(name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what libraries in C print of files that they do not like."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def judge(variants: Iterable[Variant], keep: Path | None = None) -> list[Outcome]:
    outcomes = []
    with quiet():
        for variant in variants:
            with tempfile.TemporaryDirectory() as folder:
                outcome = judged(variant, Path(folder))
                if keep is not None and outcome.unexplained:
                    kept = keep / f"{len(outcomes):04} {variant.family} {variant.name}".replace("/", "-").replace(
                        ":", ""
                    )
                    kept.mkdir(parents=True, exist_ok=True)
                    variant.put(kept)
            outcomes.append(outcome)
    return outcomes


def table_of(outcomes: list[Outcome]) -> str:
    """Markdown: a row a family, then each disagreement, those of one kind in one row."""
    families: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        families[outcome.variant.family].append(outcome)
    names = [*REFEREES, WRITTEN]
    rows = [
        "| family | files | two or more agree | one agrees | refused by all | "
        f"{' | '.join(names)} | explained | faults |"
    ]
    rows.append("|---" * (7 + len(names)) + "|")
    rows += [_row(family, found, names) for family, found in families.items()]
    rows.append(_row("**all**", outcomes, names))
    return "\n".join(rows) + "\n\n" + _disagreements(outcomes)


def _independent(outcome: Outcome) -> int:
    """How many agree that do not decode with the library that does it here."""
    own = "tifffile" if outcome.variant.ending == ".tif" else "GDAL"
    return sum(name != own for name in outcome.agree)


def _row(family: str, found: list[Outcome], names: list[str]) -> str:
    independent = [_independent(each) for each in found]
    two, one = sum(count >= 2 for count in independent), independent.count(1)
    alone = sum(bool(each.refused) and not each.unexplained and not each.reasons for each in found)
    by_name = [f"{sum(n in e.agree for e in found)}/{sum(n in e.agree or n in e.differ for e in found)}" for n in names]
    explained = sum(len(each.reasons) for each in found)
    faults = sum(len(each.unexplained) for each in found)
    cells = [family, len(found), two, one, alone, *by_name, explained, faults]
    return f"| {' | '.join(str(cell) if cell != '0/0' else '' for cell in cells)} |"


def _disagreements(outcomes: list[Outcome]) -> str:
    grouped: dict[tuple[str, str], list[str]] = defaultdict(list)
    for outcome in outcomes:
        name = f"{outcome.variant.family}: {outcome.variant.name}"
        for who, reason in outcome.reasons.items():
            grouped[who, reason].append(f"{name} ({outcome.differ.get(who, outcome.refused)})")
        for who in outcome.unexplained:
            grouped[who, "FAULT"].append(f"{name} ({outcome.differ.get(who, outcome.refused)})")
    rows = ["| who | why it is not followed | files |", "|---|---|---|"]
    for (who, reason), files in sorted(grouped.items()):
        shown = "; ".join(files).replace("|", "\\|")
        rows.append(f"| {who} | {reason} | {len(files)}: {shown} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="", help="only families with this word in their name")
    parser.add_argument("--table", type=Path, help="write the tables there too")
    parser.add_argument("--keep", type=Path, help="put the files that nobody explained there")
    options = parser.parse_args()
    outcomes = judge((each for each in all_variants() if options.family in each.family), options.keep)
    table = table_of(outcomes)
    print(table)
    faults = [outcome for outcome in outcomes if outcome.unexplained]
    print(f"{len(outcomes)} files, {len(faults)} with a disagreement that nobody explained")
    if options.table:
        options.table.write_text(_INTRODUCTION + table)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
