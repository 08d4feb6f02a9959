"""Names as people see them, and when two of them are one to a file system.

A name in a file system is bytes of any kind: it may hold a line feed, an escape code that turns a terminal's letters
around, or bytes that are no text. It is used as it is and shown as :func:`shown` has it.

References
----------
Unicode Standard Annex 15 (normalization forms), 3.13 (default caseless matching) and 9 (directional formatting
characters); PEP 383 (bytes that are no text).
"""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

# Control, half of a pair, line and paragraph separators. Format characters join letters in many scripts, and stay.
_UNSEEN = frozenset(("Cc", "Cs", "Zl", "Zp"))
_TURNING = frozenset(map(chr, (0x061C, *range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A))))
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def shown(text: object) -> str:
    r"""A name, or a message with names in it, on one line that does nothing to a terminal, a log or a page.

    >>> print(shown("a\nb\x1b[31mc\udcff"), shown("Straße 東京"))
    a\nb\x1b[31mc\xff Straße 東京
    """
    line = str(text)
    if line.isascii() and line.isprintable():
        return line
    return "".join(_escaped(letter) if _is_unseen(letter) else letter for letter in line)


def shown_json(value: Any) -> str:
    """JSON for people and programs: letters of all scripts as they are, what is not seen as JSON escapes it."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(f"\\u{ord(letter):04x}" if _is_unseen(letter) and letter != "\n" else letter for letter in text)


def _is_unseen(letter: str) -> bool:
    return letter in _TURNING or unicodedata.category(letter) in _UNSEEN


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return _SHORT.get(letter) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def name_limit_bytes(folder: Path) -> int:
    """The longest name that the file system of ``folder``, which need not be there yet, takes."""
    return _limit(folder, "PC_NAME_MAX", 255)


def path_limit_bytes(folder: Path) -> int:
    """The longest path there, with the zero at its end."""
    return _limit(folder, "PC_PATH_MAX", 4096)


def _limit(folder: Path, name: str, usual: int) -> int:
    for each in (folder, *folder.parents):
        try:
            found = os.pathconf(each, name)
        except (OSError, ValueError):  # not there, or its name is too long itself
            continue
        return found if found > 0 else usual
    return usual


def folded(name: str) -> str:
    """A name such that two of them are equal where some file system takes one for the other.

    exFAT, NTFS, SMB and APFS ignore capitals, HFS+ and APFS how a letter is composed, Windows a full stop or a space
    at the end; a few ignore width and ligatures. Slashes part names.

    >>> folded("Box/É") == folded("box/e\u0301"), folded("a.") == folded("A"), folded("a") == folded("b")
    (True, True, False)
    """
    parts = (unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", part).casefold()) for part in name.split("/"))
    # Once more: a letter may only be composed of what folding gave.
    return "/".join(unicodedata.normalize("NFKC", part.casefold()).rstrip(" .") or part for part in parts)
