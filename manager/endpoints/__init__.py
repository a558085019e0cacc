"""The endpoint stream: what every netproxy follows, from any manager."""
