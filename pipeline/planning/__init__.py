"""The cost of a scan, computed before any work starts."""
