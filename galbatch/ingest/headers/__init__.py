"""FITS headers -> what pixels mean and where they lie."""

from galbatch.ingest.headers.fits import *  # noqa: F403
