"""Messages and errors as one line."""

from __future__ import annotations

from pipeline.errors import ColorizeError
from pipeline.support.names import shown


def one_line(message: object) -> str:
    """A message that does nothing to a terminal. Ours have one line: what breaks them is a name, and is shown."""
    text = str(message)
    return shown(text if isinstance(message, ColorizeError) else " ".join(text.split()))


def reason_of(error: BaseException) -> str:
    """The first 200 characters of what a library's error says, as one line; its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__
