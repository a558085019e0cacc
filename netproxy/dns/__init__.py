"""Names of services within their networks, answered on every node."""
