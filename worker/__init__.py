"""The worker: the agent that runs what is assigned to its node, and the engines it runs it with."""
