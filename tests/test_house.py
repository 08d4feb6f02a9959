"""The house: no module imports another's private one, and no circle, with late and typing-only imports counted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WINGS = ("pipeline", "engines", "training", "flows")


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for wing in WINGS for path in (ROOT / wing).rglob("*.py")}


def _imported(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports anywhere in it, each by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            module = name if name in MODULES else name.rpartition(".")[0]
            if module in MODULES:
                yield module


GRAPH = {name: set(_imported(path)) - {name} for name, path in MODULES.items()}


def test_the_files_that_are_listed_as_long_are_there() -> None:
    """Others would begin in their place, and one process would be left alone with what is long."""
    lines = [line.split("\t") for line in (ROOT / "tests" / "seconds.tsv").read_text().splitlines()]
    assert [name for name, _ in lines if not (ROOT / name).is_file()] == []
    assert [float(told) for _, told in lines] == sorted((float(told) for _, told in lines), reverse=True)


@pytest.mark.parametrize("wing", WINGS)
def test_a_private_module_is_imported_within_its_package_only(wing: str) -> None:
    seen_from_outside = []
    for name, imported in GRAPH.items():
        for other in sorted(imported):
            parts = other.split(".")
            private = next((i for i, part in enumerate(parts) if part.startswith("_")), None)
            if private is not None and other.startswith(wing):
                package = ".".join(parts[:private])
                if not f"{name}.".startswith(f"{package}."):
                    seen_from_outside.append(f"{name} -> {other}")
    assert seen_from_outside == []


def test_there_is_no_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))
