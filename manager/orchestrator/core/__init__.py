"""The rules of replicated services, as pure functions of the cluster's state."""
