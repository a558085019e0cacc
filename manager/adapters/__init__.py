"""What a manager shows to the world outside the cluster."""
