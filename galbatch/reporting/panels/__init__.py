"""Panels of the report that one can move and ask: points of a sample of the objects, drawn by Bokeh inside the page."""

from galbatch.reporting.panels.interactive import Interactive, interactive_panels

__all__ = ["Interactive", "interactive_panels"]
