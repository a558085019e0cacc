"""Addresses and ports, each given out exactly once and taken back when its owner is gone."""
