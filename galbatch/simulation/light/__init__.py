"""The light of galaxies and stars as pixels."""
