"""The pools, and the passes that fill in what tasks and services lack."""
