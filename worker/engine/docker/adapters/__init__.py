"""What speaks to the engine's API, and what touches the node's files for containers."""
