"""The check of a new object list: what a run would refuse, which cuts are usual, and the report of both."""

from galbatch.objects.checking.check import Feeding, ListCheck, check_objects
from galbatch.objects.checking.names import guess_columns
from galbatch.objects.checking.report import TO_PASTE, report_lines

__all__ = ["TO_PASTE", "Feeding", "ListCheck", "check_objects", "guess_columns", "report_lines"]
