"""The relay workers: processes that move the bytes of connections, fed by the netproxy."""
