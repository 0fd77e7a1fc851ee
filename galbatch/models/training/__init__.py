"""Images and labels in, a network with its metadata out."""
