"""The moving parts of a Raft node: the journal, the links, the receiver, snapshots, reads."""
