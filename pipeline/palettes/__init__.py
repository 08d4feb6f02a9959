"""The palette of a scan: the windows that decide it, the choice of its colours, and how far these can be trusted."""

MOST_ANSWERS = 3
"""How many answers of a palette network are told apart."""
