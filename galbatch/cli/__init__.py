"""The command line."""

from galbatch.cli.app import main

__all__ = ["main"]
