"""Where the palette of a scan is decided, how its answers are read, and how far they can be trusted."""
