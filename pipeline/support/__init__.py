"""Files, threads, memory and GDAL: helpers for any program that reads large files, free of domain knowledge."""
