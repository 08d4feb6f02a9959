"""What a file says beside its pixels, as bytes: parsed, merged, written."""
