"""The replicated log: PySyncObj as the consensus engine, and all round it that makes it safe.

`node.RaftNode` is what the store uses. `core` holds the rules, `actor` what waits and writes,
`adapters` the engine and the network.
"""
