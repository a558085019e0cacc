"""The manager: the database, Raft, and the actors that decide what runs where."""
