"""The blocks of a run on a Dask cluster. Dask is only here."""
