"""What can go wrong with a scan, a plan or a result.

    ColorizeError
    |-- UsageError (ValueError)       the request itself makes no sense: nothing was done
    |-- ScanError (ValueError)        this scan cannot be coloured; others may
    |   |-- ScanNotFoundError (FileNotFoundError)
    |   |-- ScanUnreadableError       empty, truncated, damaged or not an image
    |   |-- ScanUnreachableError      its drive or network failed; it may be fine
    |   `-- ScanUnsupportedError      a valid image of a kind that is not handled
    |-- StoreError (RuntimeError)     the chunk store is missing, foreign or incomplete
    |-- CoverageError (RuntimeError)  a pixel that no tile covers
    |-- PredictionError (RuntimeError) an engine's answer that is no colour
    `-- OutputError (OSError)         the result cannot be written: permissions, disk full

Each message is one line: the value, the hazard, the remedy.
"""

from __future__ import annotations


class ColorizeError(Exception):
    """Base of everything this package raises on purpose."""


class UsageError(ColorizeError, ValueError):
    """The request itself makes no sense; nothing was done."""


class ScanError(ColorizeError, ValueError):
    """This scan cannot be coloured; others may."""


class ScanNotFoundError(ScanError, FileNotFoundError):
    """No such file."""


class ScanUnreadableError(ScanError):
    """Empty, truncated, damaged or not an image."""


class ScanUnreachableError(ScanError):
    """Its drive or network failed while it was read; it may be fine, so nothing of it is taken for damage."""


class ScanUnsupportedError(ScanError):
    """A valid image of a kind that is not handled."""


class StoreError(ColorizeError, RuntimeError):
    """The chunk store is missing, foreign or incomplete."""


class CoverageError(ColorizeError, RuntimeError):
    """A pixel that no tile covers."""


class PredictionError(ColorizeError, RuntimeError):
    """An engine's answer that is no colour."""


class OutputError(ColorizeError, OSError):
    """The result cannot be written."""

    def __str__(self) -> str:
        # OSError formats two arguments as an errno; these messages are always one line of text.
        return str(self.args[0]) if self.args else ""
