"""The kinds of output that networks have."""
