"""Comparing what managers and netproxies say."""
