"""Real or generated? A page that asks people, because no figure of the table measures what looks real.

The page is one file, ``quiz.html``: the pictures are inside it, nothing is fetched, and the browser computes the score.
Half of the pictures are photographs in their own colours, the other half have colours by the models, in equal shares.
No photograph is shown twice, since the second time would give the first away. Both kinds pass through the same JPEG
encoder at the same size, file names are hidden, and answers are shown only at the end, so that nobody learns from them.

How often a model's pictures are taken for real means little by itself: compare it with the same share of real ones.

References
----------
The question: "OrGANic Image Colorizations", its open questions. The method, as "fooling rate": Zhang, Isola, Efros,
Colorful image colorization, ECCV 2016, section 3.1.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

TEMPLATE = Path(__file__).with_name("quiz.html")
MOST_QUESTIONS = 60  # about six minutes
_LEAST_GENERATED = 12
_GENERATED_A_MODEL = 3
_JPEG_QUALITY = 92
_MARK = "/*QUIZ*/"


@dataclass(frozen=True)
class Candidate:
    """A photograph that may become a question: its name, and its JPEG in real colours and in each model's."""

    picture: str
    real: bytes
    generated: Mapping[str, bytes]


@dataclass(frozen=True)
class Case:
    """One question; ``model`` is None if the colours are the photograph's own."""

    picture: str
    model: str | None
    jpeg: bytes


def jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """JPEG of (H, W, 3) uint8 RGB with full chroma resolution: halved chroma would hide what the quiz asks about."""
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    return encoded.tobytes()


def questions(models: int) -> int:
    """Number of questions in a quiz on ``models`` models; always even.

    >>> questions(1), questions(6), questions(40)
    (24, 36, 60)
    """
    return min(MOST_QUESTIONS, 2 * max(_LEAST_GENERATED, _GENERATED_A_MODEL * models))


def pick_cases(candidates: list[Candidate], seed: int = 0) -> list[Case]:
    """Half real and half generated cases, models in turn, in random order; the seed makes it reproducible.

    Parameters
    ----------
    candidates : at least two, of different photographs, all with the same models; if the number is odd, one is left out

    Raises
    ------
    ValueError : fewer than two candidates, or no models.
    """
    models = list(candidates[0].generated) if candidates else []
    if len(candidates) < 2 or not models:
        raise ValueError(
            f"{len(candidates)} photographs and {len(models)} models: a quiz needs a real and a generated picture; "
            "give at least two photographs and one model"
        )
    rng = np.random.default_rng(seed)
    half = min(len(candidates), questions(len(models))) // 2
    if half > len(models):
        half -= half % len(models)  # equal shares
    drawn = [candidates[i] for i in rng.permutation(len(candidates))[: 2 * half]]
    turn = [models[i] for i in rng.permutation(len(models))]
    cases = [Case(c.picture, None, c.real) for c in drawn[:half]]
    for i, candidate in enumerate(drawn[half:]):
        model = turn[i % len(turn)]
        cases.append(Case(candidate.picture, model, candidate.generated[model]))
    return [cases[i] for i in rng.permutation(len(cases))]


def write_quiz(out: Path, cases: list[Case]) -> Path:
    """Write ``quiz.html`` into the folder ``out``, with the questions in the order given.

    Raises
    ------
    OSError : ``out`` cannot be written to.
    """
    answers = [{"picture": case.picture, "model": case.model} for case in cases]
    told = json.dumps(answers, ensure_ascii=False).encode()
    record = {
        # Results of several people can be compared and pooled if their ids are equal.
        "id": hashlib.sha256(told + b"".join(case.jpeg for case in cases)).hexdigest()[:12],
        "pictures": [base64.b64encode(case.jpeg).decode() for case in cases],
        # Hidden from the reader, but not secret.
        "answers": base64.b64encode(told).decode(),
    }
    path = out / "quiz.html"
    # Base64 and ASCII keys only, so that nothing can end the script element early.
    path.write_text(TEMPLATE.read_text(encoding="utf-8").replace(_MARK, json.dumps(record)), encoding="utf-8")
    return path
