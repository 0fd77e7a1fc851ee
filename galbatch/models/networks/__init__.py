"""The networks that galbatch trains and rebuilds."""
