"""The projection, kept up to date commit by commit."""
