"""The command line. Each file holds a group of commands, which parse arguments, call the package and print the result."""

from galbatch.cli.app import main

__all__ = ["main"]
