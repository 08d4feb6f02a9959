"""Hypothesis strategies shared by the tests."""

from __future__ import annotations

from hypothesis import strategies as st

from pipeline.grid import TileAxis, TileGrid
from pipeline.windows import WINDOWS

windows = st.sampled_from(sorted(WINDOWS))


@st.composite
def axes(draw: st.DrawFn, longest: int = 90, largest: int = 40) -> TileAxis:
    """An axis of any extent, with tiles smaller or larger than it and any legal stride."""
    size = draw(st.integers(1, largest))
    return TileAxis(draw(st.integers(1, longest)), size, draw(st.integers(1, size)))


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    return TileGrid(draw(axes()), draw(axes()))
