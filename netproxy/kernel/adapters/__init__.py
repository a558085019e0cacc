"""What touches the kernel: netlink, nftables, bpf(2) and the cgroup tree."""
