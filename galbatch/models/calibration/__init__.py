"""How well posteriors cover the truth, and the correction that makes them."""
