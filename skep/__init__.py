"""Skep: the import package and the kernel that managers, workers and netproxies share."""
