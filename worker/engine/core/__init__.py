"""The engines' rules, without any I/O."""
