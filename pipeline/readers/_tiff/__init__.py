"""The parts of the TIFF reader, one module each: pages, layout, kind, tags, scale, tone, segments."""
