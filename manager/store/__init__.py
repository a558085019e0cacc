"""The cluster database: tables, transactions and change events, replicated by Raft."""
