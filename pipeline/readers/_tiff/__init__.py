"""The parts of the TIFF reader, a file each: pages, layout, kind, tags, scale, tone, segments."""
