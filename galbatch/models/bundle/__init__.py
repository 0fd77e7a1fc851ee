"""Bundle files: written, loaded, checked."""
