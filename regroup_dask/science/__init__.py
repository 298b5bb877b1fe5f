"""Pure functions on arrays: no Dask, no labels, no files."""
