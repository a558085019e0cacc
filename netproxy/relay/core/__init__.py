"""The rules of a relay worker: no I/O, no clock, no event loop."""
