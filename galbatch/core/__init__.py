"""Values and facts that every room shares: nothing here imports another room but errors."""
