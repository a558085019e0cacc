"""Reading tasks' output: the leader's end, between those who read and the nodes that have it."""
