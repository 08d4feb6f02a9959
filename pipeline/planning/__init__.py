"""What a scan will cost, worked out before any work starts."""
