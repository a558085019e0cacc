"""What touches sockets, namespaces, files and processes."""
