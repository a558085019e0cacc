"""What touches sockets, the clock and the netproxy's control socket."""
