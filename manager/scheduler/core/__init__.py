"""Filters, spread and the explanation, as pure functions."""
