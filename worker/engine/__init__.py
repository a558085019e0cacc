"""What runs a task on a node: one small protocol, and the engines that speak it."""
