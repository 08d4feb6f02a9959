"""Models against the truth: one table, contact sheets and a quiz. :func:`evaluate` does all of it."""

from training.evaluation.evaluate import evaluate
from training.evaluation.table import Row

__all__ = ["Row", "evaluate"]
