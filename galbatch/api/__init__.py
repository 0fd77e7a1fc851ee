"""What readers of a finished run use, in Python and by the CLI."""
