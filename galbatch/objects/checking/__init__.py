"""The check of a new object list: what a run would refuse, which cuts are usual, and the report of both."""

from galbatch.objects.checking.check import ListCheck, check_objects, guess_columns, report_lines

__all__ = ["ListCheck", "check_objects", "guess_columns", "report_lines"]
