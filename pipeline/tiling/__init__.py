"""Tiled inference, the method itself: grids, weights, blending, the anchor."""
