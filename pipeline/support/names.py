"""File names as shown to people, and when a file system considers two names the same.

A file name is arbitrary bytes: it may contain a line feed, an escape code that reverses a terminal's text, or bytes
that are not text. It is used unchanged and displayed by :func:`shown`.

References
----------
Unicode Standard Annex 15 (normalization forms), 3.13 (default caseless matching) and 9 (directional formatting
characters); PEP 383 (bytes that are not text).
"""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

# Control characters, surrogates, line and paragraph separators. Format characters stay: many scripts need them.
_UNSEEN = frozenset(("Cc", "Cs", "Zl", "Zp"))
_TURNING = frozenset(map(chr, (0x061C, *range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A))))
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def shown(text: object) -> str:
    r"""A name, or a message with names in it, on one line that is harmless to a terminal, a log or a page.

    >>> print(shown("a\nb\x1b[31mc\udcff"), shown("Straße 東京"))
    a\nb\x1b[31mc\xff Straße 東京
    """
    line = str(text)
    if line.isascii() and line.isprintable():
        return line
    return "".join(_escaped(letter) if _is_unseen(letter) else letter for letter in line)


def shown_json(value: Any) -> str:
    """JSON for people and programs: letters of all scripts unchanged, invisible characters as JSON escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(f"\\u{ord(letter):04x}" if _is_unseen(letter) and letter != "\n" else letter for letter in text)


def _is_unseen(letter: str) -> bool:
    return letter in _TURNING or unicodedata.category(letter) in _UNSEEN


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return _SHORT.get(letter) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def name_limit_bytes(folder: Path) -> int:
    """The longest name that the file system of ``folder`` accepts; the folder need not exist yet."""
    return _limit(folder, "PC_NAME_MAX", 255)


def path_limit_bytes(folder: Path) -> int:
    """The longest path there, including the final zero byte."""
    return _limit(folder, "PC_PATH_MAX", 4096)


def _limit(folder: Path, name: str, usual: int) -> int:
    for each in (folder, *folder.parents):
        try:
            found = os.pathconf(each, name)
        except (OSError, ValueError):  # missing, or its own name is too long
            continue
        return found if found > 0 else usual
    return usual


def folded(name: str) -> str:
    """A normalized name: two names are equal after folding if some file system considers them the same.

    exFAT, NTFS, SMB and APFS ignore case, HFS+ and APFS how a letter is composed, Windows a full stop or a space
    at the end; a few ignore width and ligatures. Slashes separate names.

    >>> folded("Box/É") == folded("box/e\u0301"), folded("a.") == folded("A"), folded("a") == folded("b")
    (True, True, False)
    """
    if name.isascii():
        return "/".join(part.rstrip(" .") or part for part in name.lower().split("/"))
    parts = (unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", part).casefold()) for part in name.split("/"))
    # Normalize again, because folding may produce letters that can be composed.
    return "/".join(unicodedata.normalize("NFKC", part.casefold()).rstrip(" .") or part for part in parts)
