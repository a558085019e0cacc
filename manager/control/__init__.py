"""The control API: what users and their programs speak to."""
