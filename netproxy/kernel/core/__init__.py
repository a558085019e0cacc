"""The rules of the kernel plane: no I/O, no clock, no event loop."""
