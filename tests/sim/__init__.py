"""The whole cluster in one process, under virtual time, with faults drawn from a seed."""
