"""Adapters of the worker."""
