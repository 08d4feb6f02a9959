"""Files, threads, memory and GDAL: what any program that reads large files needs. No word of the domain in here."""
