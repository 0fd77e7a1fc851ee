"""Object lists: formats, reading, selections, checks."""
