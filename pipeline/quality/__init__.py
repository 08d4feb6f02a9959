"""Visible traces of the tiles in a coloured version, and the difference of two versions."""
