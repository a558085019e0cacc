"""Which node: places pending tasks by filters and spread, and says why it can't."""
