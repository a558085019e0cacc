"""Mirrors skep/api."""
