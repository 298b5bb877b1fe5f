"""Regroup the classes of a cryo-EM 3D classification into superclasses of particles and maps, on Dask."""
