"""Images of galaxies and stars: profiles, PSFs, and noise."""
