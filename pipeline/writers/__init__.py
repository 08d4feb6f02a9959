"""One file per family of results."""
