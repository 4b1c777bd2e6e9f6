"""Every figure of the project is drawn here."""

from .comparison_figure import Boxes, Example, TrainedRun, draw_comparison
from .counting_visualizer import CountingVisualizer

__all__ = ['Boxes', 'CountingVisualizer', 'Example', 'TrainedRun', 'draw_comparison']
