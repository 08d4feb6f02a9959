"""Messages and errors as one line."""

from __future__ import annotations

from pipeline.errors import ColorizeError
from pipeline.support.names import shown


def one_line(message: object) -> str:
    """A message on one line, harmless to a terminal. Our own messages have one line: a break in them is from a name."""
    text = str(message)
    return shown(text if isinstance(message, ColorizeError) else " ".join(text.split()))


def reason_of(error: BaseException) -> str:
    """The first 200 characters of a library's error, as one line; its type if the message is empty."""
    return " ".join(str(error).split())[:200] or type(error).__name__
