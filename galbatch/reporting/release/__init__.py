"""A release: what a catalog needs beside its files to be published and cited."""

from galbatch.reporting.release.releasing import Released, release_folder, write_release

__all__ = ["Released", "release_folder", "write_release"]
