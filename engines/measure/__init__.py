"""Measurements of engines on real tiles: parity, speed, and the choice of a precision."""
