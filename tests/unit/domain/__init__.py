"""Mirrors skep/domain."""
