"""Tests of manager/raft."""
