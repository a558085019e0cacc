"""The engines themselves: what they do to processes, files and control groups."""
