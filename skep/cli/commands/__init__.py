"""What each subcommand does. Modules are loaded when their command is called."""
