"""The data plane that works in the kernel: namespaces, overlays and their rules. It needs root."""
