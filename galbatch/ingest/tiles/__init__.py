"""A survey's files -> tiles, and which of them lie where."""
