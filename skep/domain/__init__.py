"""The vocabulary as frozen objects: what managers, workers and netproxies all understand."""
