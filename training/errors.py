"""Errors of the training package.

TrainingError
|-- RecipeError (ValueError)   a recipe that cannot be run as written
`-- DataError (ValueError)     pictures that are missing, unreadable or not colour
"""

from __future__ import annotations


class TrainingError(Exception):
    """Base of everything this package raises on purpose."""


class RecipeError(TrainingError, ValueError):
    """A recipe that cannot be run as written."""


class DataError(TrainingError, ValueError):
    """Pictures that are missing, unreadable or not colour."""
