"""What of a reader can be decided without doing anything."""
