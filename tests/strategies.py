"""Hypothesis strategies shared by the tests."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from pipeline.tiling.grid import TileAxis, TileGrid
from pipeline.tiling.weights import WINDOWS

windows = st.sampled_from(sorted(WINDOWS))


@st.composite
def axes(draw: st.DrawFn, longest: int = 90, largest: int = 40) -> TileAxis:
    """An axis of any extent, with tiles smaller or larger than it and any legal stride."""
    size = draw(st.integers(1, largest))
    return TileAxis(draw(st.integers(1, longest)), size, draw(st.integers(1, size)))


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    return TileGrid(draw(axes()), draw(axes()))


def examples(count: int) -> settings:
    """Settings of a property that is tried with ``count`` examples, or with the profile's where these are fewer."""
    return settings(max_examples=min(count, settings().max_examples))
