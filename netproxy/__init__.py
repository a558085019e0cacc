"""The netproxy: names, virtual addresses and published ports on every node."""
