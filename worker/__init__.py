"""The worker: the agent that runs the tasks assigned to its node, and the engines it runs them with."""
