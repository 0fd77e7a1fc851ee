"""Values and constants that all parts of galbatch share: it imports nothing from galbatch except `galbatch.errors`."""
