"""The sky of a run besides its objects: the area of its footprint under masks, and random points in it."""

from galbatch.api.survey.area import Area, area_of_run

__all__ = ["Area", "area_of_run"]
