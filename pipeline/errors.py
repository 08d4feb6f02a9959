"""What can go wrong with a scan, a plan or a result.

    ColorizeError
    |-- UsageError (ValueError)       the request itself makes no sense: nothing was done
    |   |-- FolderBusyError           another run holds the folder
    |   `-- PaletteCopyError          a coloured copy that is none of its scan, or cannot be read
    |-- ScanError (ValueError)        this scan cannot be coloured; others may
    |   |-- ScanNotFoundError (FileNotFoundError)
    |   |-- ScanUnreadableError       empty, damaged or not an image
    |   |   `-- ScanDamagedError      an image that is cut off or damaged: some of it may be read (--salvage)
    |   |-- ScanUnreachableError      its drive or network failed; it may be fine
    |   `-- ScanUnsupportedError      a valid image of a kind that is not handled
    |-- StoreError (RuntimeError)     the chunk store is missing, foreign or incomplete
    |   `-- StoreBusyError            another process keeps writing to it
    |-- SidecarError (ValueError)     the JSON beside a result is missing, damaged or not this project's
    |-- CoverageError (RuntimeError)  a pixel that no tile covers
    |-- PredictionError (RuntimeError) an engine's output that is not a colour
    `-- OutputError (OSError)         the result cannot be written: permissions, full disk

Each message is one line: the value, the hazard, the remedy.
"""

from __future__ import annotations


class ColorizeError(Exception):
    """Base of everything this package raises on purpose."""


class UsageError(ColorizeError, ValueError):
    """The request itself makes no sense; nothing was done.

    Attributes
    ----------
    option : the option whose value it is about, by its name in settings files; empty if it is not about one
    """

    def __init__(self, message: str = "", option: str = "") -> None:
        super().__init__(message)
        self.option = option


class FolderBusyError(UsageError):
    """Another run holds the folder."""


class PaletteCopyError(UsageError):
    """A coloured copy that is none of its scan, or cannot be read; the scan itself may be fine."""


class HintError(UsageError):
    """Hints that cannot be read, or that the scan cannot have; the scan itself may be fine."""


class ScanError(ColorizeError, ValueError):
    """This scan cannot be coloured; others may."""


class ScanNotFoundError(ScanError, FileNotFoundError):
    """No such file."""


class ScanUnreadableError(ScanError):
    """Empty, damaged or not an image."""


class ScanDamagedError(ScanUnreadableError):
    """An image that is cut off or damaged; its readable parts can still be coloured."""


class ScanUnreachableError(ScanError):
    """Its drive or network failed during reading. The file may be fine, so this does not count as damage."""


class ScanUnsupportedError(ScanError):
    """A valid image of a kind that is not handled."""


class StoreError(ColorizeError, RuntimeError):
    """The chunk store is missing, foreign or incomplete."""


class StoreBusyError(StoreError):
    """Another process keeps writing to the store; nothing is wrong with it."""


class SidecarError(ColorizeError, ValueError):
    """The JSON beside a result is missing, damaged or not this project's."""


class CoverageError(ColorizeError, RuntimeError):
    """A pixel that no tile covers."""


class PredictionError(ColorizeError, RuntimeError):
    """An engine's output that is not a colour."""


class OutputError(ColorizeError, OSError):
    """The result cannot be written."""

    def __str__(self) -> str:
        # OSError formats two arguments as an errno; these messages are always one line of text.
        return str(self.args[0]) if self.args else ""
