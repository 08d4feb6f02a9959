"""README, docs/ and the other pages: their links, commands, options, paths and tables are what is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import markdown
import pytest
from typer.main import get_command

from flows.catalogue.schema import metadata
from flows.cli.app import app
from flows.cli.request import grade_table, options_table
from flows.outcome import FailureKind, ScanOutcome
from pipeline.quality.figures import Quality
from pipeline.results.run_spec import RunSpec
from tests.rooms import DRAWING, drawing

ROOT = Path(__file__).parents[1]
OUTSIDE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "deploy" / "README.md"]
PAGES = [*OUTSIDE, *sorted((ROOT / "docs").glob("*.md"))]
# What past releases could do need not be there any more.
PRESENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
_PATH = re.compile(r"^(?:pipeline|flows|engines|training|tests|deploy|docs)/[\w./-]*$")
_COMMAND = re.compile(r"(?:^|(?<=[\s(]))(?:\.venv/bin/)?colorize-archive (?!\s)(.+)$")
_SHELL = {"&&", "|", ";", ">"}


class _Page(HTMLParser):
    """Links, anchors and code of a page in Markdown."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.code: list[str] = []
        self._in_code = False
        self.feed(markdown.markdown(path.read_text(encoding="utf-8"), extensions=["tables", "fenced_code", "toc"]))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.links += [named[name] for name in ("href", "src") if name in named]
        self.ids |= {named["id"]} if "id" in named else set()
        if tag == "code":
            self._in_code = True
            self.code.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_code = self._in_code and tag != "code"

    def handle_data(self, data: str) -> None:
        if self._in_code:
            self.code[-1] += data


page_of = cache(_Page)


@cache
def application() -> Any:
    return get_command(app)


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def marked(page: str, name: str) -> list[list[str]]:
    """Cells of the table between two comments, without its head."""
    text = (ROOT / page).read_text(encoding="utf-8")
    table = text.split(f"<!-- {name} -->\n")[1].split(f"\n<!-- end of {name} -->")[0]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()[2:]]


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("path", OUTSIDE, ids=names(OUTSIDE))
def test_links_outside_of_docs_lead_somewhere(path):
    """Those in docs/ are mkdocs' to check."""
    for link in page_of(path).links:
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not anchor or anchor in page_of(target).ids, link


@pytest.mark.e2e
def test_the_docs_build_without_a_warning_and_fetch_nothing(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = [page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")]
    assert len(pages) > 10
    found = [each for page in pages for each in re.findall(r"<(?:script|link|img)\b[^>]*>", page)]
    assert [each for each in found if re.search(r'(?:src|href)="(?:https?:)?//', each)] == []


def commands(page: Path) -> Iterator[list[str]]:
    """The words after ``colorize-archive`` of each command of a page, up to the next one of the shell."""
    for line in (line for code in page_of(page).code for line in code.splitlines()):
        if "deployment run" not in line and (found := _COMMAND.search(line)):
            words = shlex.split(found[1], comments=True)
            stop = next((at for at, word in enumerate(words) if word in _SHELL), len(words))
            yield words[:stop]


@pytest.mark.parametrize("path", PRESENT, ids=names(PRESENT))
def test_commands_and_their_options_exist(path):
    for words in commands(path):
        command, rest = application(), list(words)
        while rest and rest[0] in _below(command):
            command = _below(command)[rest.pop(0)]
        options = {"--help", *(name for each in command.params for name in (*each.opts, *each.secondary_opts))}
        given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert not _below(command) or not rest or given, words
        assert given <= options, words


def _below(command: Any) -> dict[str, Any]:
    """The commands of a group."""
    return getattr(command, "commands", {})


def test_commands_are_found():
    assert len([each for path in PRESENT for each in commands(path)]) > 30
    assert ["run", "tests/scans", "--output", "colour"] in list(commands(ROOT / "README.md"))


@pytest.mark.parametrize("path", PRESENT, ids=names(PRESENT))
def test_paths_and_modules_exist(path):
    for code in page_of(path).code:
        if _PATH.match(code):
            assert (ROOT / code).exists(), code
        for module in re.findall(r"python -m ((?:tests|training|flows|pipeline|engines)[\w.]*)", code):
            assert find_spec(module), module


def test_every_command_is_told():
    told = " ".join(code for path in PRESENT for code in page_of(path).code)
    paths = [name for name in _below(application()) if name != "engines"]
    paths += [f"engines {name}" for name in _below(_below(application())["engines"])]
    assert [path for path in paths if f"colorize-archive {path}" not in told and f"`{path}`" not in told] == []


def test_the_table_of_options_is_that_of_the_command():
    rows = {tuple(spans(first)): spans(default) for first, default, _ in marked("docs/usage.md", "options")}
    options = [each for each in _below(application())["run"].params if each.param_type_name == "option"]
    assert set(rows) == {(*each.opts, *each.secondary_opts) for each in options}
    for each in options:
        if isinstance(each.default, str):
            assert rows[(*each.opts, *each.secondary_opts)] == [each.default], each.name


def test_the_table_of_options_is_as_printed():
    """By ``python -m flows.cli.request``."""
    text = (ROOT / "docs/usage.md").read_text(encoding="utf-8")
    assert f"<!-- options -->\n{options_table()}\n<!-- end of options -->" in text
    assert f"<!-- grade -->\n{grade_table()}\n<!-- end of grade -->" in text


def test_every_room_is_on_the_map():
    """Packages and modules at the top of each folder, in the tables."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    packages = [path.parent for top in ("pipeline", "engines", "flows") for path in (ROOT / top).glob("*/__init__.py")]
    assert len(packages) > 15
    assert [each for each in packages if f"`{each.relative_to(ROOT).as_posix()}/`" not in text] == []


def test_the_drawing_is_that_of_the_contracts():
    assert DRAWING.read_text(encoding="utf-8") == drawing(), "python -m tests.rooms draws it anew"


def test_options_of_reprocess_are_told():
    text = (ROOT / "docs/usage.md").read_text(encoding="utf-8")
    options = _below(application())["reprocess"].params
    known = {name for each in options for name in (*each.opts, *each.secondary_opts) if name.startswith("--")}
    assert {name for name in known if f"`{name}" not in text and f"{name} " not in text} == set()


SCHEMAS = {"settings": RunSpec, "quality": Quality, "outcome": ScanOutcome}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_has_every_key(name):
    told = [key for first, *_ in marked("docs/sidecar.md", name) for key in spans(first)]
    assert sorted(told) == sorted(field.name for field in fields(SCHEMAS[name]))


def test_the_schema_has_every_kind_of_failure():
    (told,) = (meaning for first, meaning in marked("docs/sidecar.md", "outcome") if first == "`failure_kind`")
    assert set(spans(told)) == {kind for kind in get_args(FailureKind) if kind}


def test_the_schema_has_every_table_of_the_catalogue():
    rows = {spans(name)[0]: (spans(key), spans(others)) for name, key, others in marked("docs/sidecar.md", "catalogue")}
    assert set(rows) == set(metadata.tables)
    for name, table in metadata.tables.items():
        keys, others = rows[name]
        assert keys == [column.name for column in table.primary_key]
        states = {"done", "failed", "quarantined", "stopped"} if name == "scans" else set()
        assert [each for each in others if each not in states] == [c.name for c in table.c if not c.primary_key]


@pytest.mark.e2e
def test_broken_links_are_errors(tmp_path):
    (tmp_path / "docs").mkdir()
    links = "[x](usage.md#nowhere) [x](nowhere.md) ![x](nowhere.png)"
    (tmp_path / "docs" / "index.md").write_text(f"# Start\n\n{links}\n")
    (tmp_path / "docs" / "usage.md").write_text("# Usage\n")
    (tmp_path / "mkdocs.yml").write_text((ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("nav:\n")[0])
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode != 0
    assert [each for each in ("'#nowhere'", "nowhere.md", "nowhere.png") if each not in built.stderr] == []
