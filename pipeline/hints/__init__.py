"""Hints: colours that somebody knows of places of a scan, read from files and spread over what is alike and near."""

ENDING, STROKES = ".hints.json", ".hints.png"
ENDINGS = (ENDING, STROKES)
