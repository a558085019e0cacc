"""Tasks as containers of Docker Engine, or of whatever else speaks its API."""
