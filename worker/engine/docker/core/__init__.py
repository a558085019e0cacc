"""What is decided about containers without asking anybody."""
