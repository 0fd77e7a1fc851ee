"""Cutouts in, result columns out."""
