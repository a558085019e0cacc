"""What should exist: creates tasks, replaces what failed, removes what is not wanted."""
