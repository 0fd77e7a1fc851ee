"""The cutout store."""
