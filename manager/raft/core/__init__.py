"""The rules of the replicated log, without waiting, clocks or I/O."""
