"""The data plane in user space: what a relay worker does with connections and datagrams."""
