"""What the network costs: `python -m bench.net`."""
