"""Batches of work in processes of this machine or on a Dask cluster; may import only files."""
