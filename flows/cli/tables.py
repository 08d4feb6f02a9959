"""Text that fits a terminal: Markdown tables turned round where they are too wide, first sentences, and times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from rich.cells import cell_len

_GAP = "  "
# Inside of words a stop ends nothing: 0.5, al., e.g.
_END = re.compile(r"(?<=[^.\s][^.\s]\.)\s+(?=[A-Z\d(])")


def first_sentence(text: str) -> str:
    """The first sentence, without its full stop.

    >>> first_sentence("Learns at 0.5 of the rate. Slowly."), first_sentence("After Isola et al. 2017, in Lab. Wide.")
    ('Learns at 0.5 of the rate', 'After Isola et al. 2017, in Lab')
    """
    for found in _END.finditer(text):
        before = text[: found.start()]
        if not before.endswith((" al.", "e.g.", "i.e.")):
            return before.removesuffix(".")
    return text.removesuffix(".")


def local_time(time: str) -> str:
    """An ISO 8601 time as this machine's clock shows it, to the minute and with its zone; any other text as it is."""
    try:
        return f"{datetime.fromisoformat(time).astimezone():%Y-%m-%d %H:%M %Z}"
    except ValueError:
        return time


def narrowed(text: str, width: int) -> str:
    """``text`` with each Markdown table that is wider than ``width`` turned round: a line a column, a column a row.

    As many rows stand side by side as fit, at least one; the others follow below.
    """
    lines: list[str] = []
    table: list[str] = []
    for line in [*text.split("\n"), ""]:
        if line.startswith("|"):
            table.append(line)
            continue
        if table:
            lines += table if max(map(cell_len, table)) <= width or len(table) < 3 else _turned(table, width)
        table = []
        lines.append(line)
    return "\n".join(lines[:-1])


def _turned(table: list[str], width: int) -> Iterator[str]:
    heads, _, *rows = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table)
    left = max(map(cell_len, heads))
    while rows:
        widths: list[int] = []
        for row in rows:
            wanted = max(map(cell_len, row))
            if widths and left + sum(widths) + wanted + len(_GAP) * (len(widths) + 1) > width:
                break
            widths.append(wanted)
        these, rows = rows[: len(widths)], rows[len(widths) :]
        for index, head in enumerate(heads):
            cells = (_padded(row[index], size) for row, size in zip(these, widths, strict=True))
            yield _GAP.join([_padded(head, left), *cells]).rstrip()
        if rows:
            yield ""


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - cell_len(cell))
