"""Errors of the engines.

EngineError
|-- ModelError (ValueError)         a model folder that is missing, damaged or not what its card says
`-- EngineUnavailableError          a backend that is unknown, or cannot run here
    `-- BackendNotInstalledError    one whose library is not installed
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of everything this package raises on purpose; each message is one line.

    Attributes
    ----------
    option : the option of a run whose value it is about, engine, precision or model; empty if it is not about one
    """

    def __init__(self, message: str = "", option: str = "") -> None:
        super().__init__(message)
        self.option = option


class ModelError(EngineError, ValueError):
    """A model folder that is missing, damaged or not what its card says."""


class EngineUnavailableError(EngineError, RuntimeError):
    """A backend that is unknown, or cannot run here."""


class BackendNotInstalledError(EngineUnavailableError):
    """A backend whose library is not installed, or not in the variant that it needs."""


def one_line(error: BaseException) -> str:
    """The error's message as one line, or its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
