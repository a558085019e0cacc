"""The rules of the kernel data plane: what is wanted, what is there, and the steps between."""
