"""``python -m galbatch``: the command line where no script is installed."""

from galbatch.cli import main

main()
