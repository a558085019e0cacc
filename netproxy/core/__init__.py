"""The rules of the netproxy: no I/O, no clock, no event loop."""
