"""What touches the kernel: namespaces, netlink sockets and the files that name namespaces."""
