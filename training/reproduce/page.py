"""A page of results: one HTML file that opens from the disk, with its pictures beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

NAME = "index.html"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { padding: .3rem .6rem; border-bottom: 1px solid #8886; text-align: left; }
td { font-variant-numeric: tabular-nums; } .wide { overflow-x: auto; }
figure { margin: 1rem 0; } figure img { max-width: 100%; background: #fff; } figcaption { font-size: .9rem; }
code { overflow-wrap: anywhere; }
"""


def _address(path: Path, folder: Path) -> str:
    """The relative address of a file for a page in ``folder``."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())


@dataclass(frozen=True)
class Table:
    """Cells as text; the first row is the head."""

    rows: Sequence[Sequence[str]]

    def html(self, _: Path) -> str:
        head, *body = self.rows
        lines = ["<tr>" + "".join(f"<th scope='col'>{escape(cell)}</th>" for cell in head) + "</tr>"]
        lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
        return f"<div class='wide'><table>{''.join(lines)}</table></div>"


@dataclass(frozen=True)
class Figure:
    """A picture file and its caption."""

    path: Path
    caption: str

    def html(self, folder: Path) -> str:
        source = _address(self.path, folder)
        caption = escape(self.caption)
        return f"<figure><img src='{source}' alt='{caption}'><figcaption>{caption}</figcaption></figure>"


@dataclass(frozen=True)
class Link:
    """A link to another file of the folder."""

    path: Path
    text: str

    def html(self, folder: Path) -> str:
        return f"<p><a href='{_address(self.path, folder)}'>{escape(self.text)}</a></p>"


Part = str | Table | Figure | Link


@dataclass
class Page:
    """A title, an introduction, and sections of text, tables and figures."""

    title: str
    intro: list[str]
    sections: list[tuple[str, list[Part]]] = field(default_factory=list)

    def add(self, heading: str, *parts: Part) -> None:
        """Add a section."""
        self.sections.append((heading, list(parts)))

    def write(self, folder: Path) -> Path:
        """Write the page into ``folder``, whole or not at all. Raises OSError if that fails."""

        def html(part: Part) -> str:
            return f"<p>{escape(part)}</p>" if isinstance(part, str) else part.html(folder)

        body = [f"<h1>{escape(self.title)}</h1>", *(html(text) for text in self.intro)]
        for heading, parts in self.sections:
            body += [f"<h2>{escape(heading)}</h2>", *map(html, parts)]
        head = f"<meta charset='utf-8'><title>{escape(self.title)}</title><style>{_STYLE}</style>"
        text = f"<!DOCTYPE html>\n<html lang='en'><head>{head}</head><body>\n" + "\n".join(body) + "\n</body></html>\n"
        part = folder / f"{NAME}.part"
        part.write_text(text, encoding="utf-8")
        os.replace(part, folder / NAME)
        return folder / NAME
