"""Objects and tiles -> cutouts."""
