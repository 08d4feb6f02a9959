"""What commands print with ``--json``, held against the keys that the docs list."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, TypeAdapter, with_config

from flows.cli.json_schema import OBJECTS, OPEN


def check(name: str, told: dict[str, Any], schemas: dict[str, type] = OBJECTS) -> dict[str, Any]:
    """An object that has every key of its schema, none else, and each of its kind."""
    config = ConfigDict(strict=True, extra="allow" if name in OPEN else "forbid")
    TypeAdapter(with_config(config)(schemas[name])).validate_python(told)
    return told
