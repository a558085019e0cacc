"""The workers' side of the leader: sessions, assignments down, statuses up, who is alive."""
