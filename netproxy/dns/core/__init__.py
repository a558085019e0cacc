"""The rules of the DNS server: no I/O, no clock, no event loop."""
