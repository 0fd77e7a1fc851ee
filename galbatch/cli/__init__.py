"""The command line, one file a group of commands: parse, call, print, exit code."""

from galbatch.cli.app import main

__all__ = ["main"]
