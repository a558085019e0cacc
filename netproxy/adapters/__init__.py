"""What touches sockets, and what is shown to Prometheus."""
