"""Containers on three nodes: Skep with the Docker engine beside Docker Swarm, in the same run."""
