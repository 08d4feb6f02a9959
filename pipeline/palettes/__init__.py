"""The palette of a scan: the windows that decide it, the choice of its colours, and how far these can be trusted."""
