"""What touches sockets and processes."""
