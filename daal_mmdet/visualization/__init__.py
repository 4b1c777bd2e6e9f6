"""Every figure of the project is drawn here."""

from .comparison_figure import Boxes, Example, TrainedRun, draw_comparison

__all__ = ['Boxes', 'Example', 'TrainedRun', 'draw_comparison']
