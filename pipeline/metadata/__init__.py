"""Embedded metadata as bytes: parsed, merged, written."""
