"""An OCI runtime that puts a container into the network namespace that Skep has made for it.

It is runc with one thing changed, made of two scripts that dockerd's machine has copies of:
`skep-runtime`, which hands everything but `create` to runc at once, and `create.py`.
"""
