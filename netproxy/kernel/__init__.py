"""The data plane that works in the kernel: namespaces, bridges, VXLAN, BPF and nftables."""
