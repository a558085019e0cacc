"""The tests; tests/unit mirrors the source, the other folders hold one kind of test each."""
