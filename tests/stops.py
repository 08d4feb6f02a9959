"""What stands after a stop at any moment: before each renaming, as all that is written is renamed into its place."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_MOST = 19


def stopped_anywhere(
    first: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], Any]
) -> Iterator[tuple[Path, bool]]:
    """Do something to copies of a folder, each stopped before a later renaming; the last one comes to its end.

    Yields the copies beside ``first``, and whether they were stopped. There must be several moments to stop at.
    """
    for moment in range(_MOST + 1):
        output = first.with_name(f"{first.name}{moment}")
        shutil.copytree(first, output)
        is_stopped = False
        with monkeypatch.context() as patch:
            _stop_at(patch, moment)
            try:
                act(output)
            except KeyboardInterrupt:
                is_stopped = True
        yield output, is_stopped
        if not is_stopped:
            break
    assert 1 < moment < _MOST


def _stop_at(patch: pytest.MonkeyPatch, moment: int) -> None:
    """Stop before the renaming with this number."""
    replace_file, count = os.replace, itertools.count()

    def replacing(*given: Path) -> None:
        if next(count) == moment:
            raise KeyboardInterrupt
        replace_file(*given)

    patch.setattr(os, "replace", replacing)
