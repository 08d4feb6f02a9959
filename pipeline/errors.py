"""What can go wrong with a scan, a plan or a result.

    ColorizeError
    |-- UsageError (ValueError)       the request itself makes no sense: nothing was done
    |   `-- FolderBusyError           another run holds the folder
    |-- ScanError (ValueError)        this scan cannot be coloured; others may
    |   |-- ScanNotFoundError (FileNotFoundError)
    |   |-- ScanUnreadableError       empty, damaged or not an image
    |   |   `-- ScanDamagedError      an image that is cut off or damaged: some of it may be read (--salvage)
    |   |-- ScanUnreachableError      its drive or network failed; it may be fine
    |   `-- ScanUnsupportedError      a valid image of a kind that is not handled
    |-- StoreError (RuntimeError)     the chunk store is missing, foreign or incomplete
    |   `-- StoreBusyError            somebody else writes to it all the while
    |-- SidecarError (ValueError)     the JSON beside a result is missing, damaged or not this project's
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


class FolderBusyError(UsageError):
    """Another run holds the folder."""


class ScanError(ColorizeError, ValueError):
    """This scan cannot be coloured; others may."""


class ScanNotFoundError(ScanError, FileNotFoundError):
    """No such file."""


class ScanUnreadableError(ScanError):
    """Empty, damaged or not an image."""


class ScanDamagedError(ScanUnreadableError):
    """An image that is cut off or damaged: what of it can be read may be coloured all the same."""


class ScanUnreachableError(ScanError):
    """Its drive or network failed while it was read; it may be fine, so nothing of it is taken for damage."""


class ScanUnsupportedError(ScanError):
    """A valid image of a kind that is not handled."""


class StoreError(ColorizeError, RuntimeError):
    """The chunk store is missing, foreign or incomplete."""


class StoreBusyError(StoreError):
    """Somebody else writes to the store all the while; nothing is wrong with it."""


class SidecarError(ColorizeError, ValueError):
    """The JSON beside a result is missing, damaged or not this project's."""


class CoverageError(ColorizeError, RuntimeError):
    """A pixel that no tile covers."""


class PredictionError(ColorizeError, RuntimeError):
    """An engine's answer that is no colour."""


class OutputError(ColorizeError, OSError):
    """The result cannot be written."""

    def __str__(self) -> str:
        # OSError formats two arguments as an errno; these messages are always one line of text.
        return str(self.args[0]) if self.args else ""
