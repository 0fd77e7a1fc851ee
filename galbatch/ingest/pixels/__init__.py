"""Windows of pixels from files, and what reading them costs."""
