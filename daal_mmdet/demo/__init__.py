"""The main job behind ``make demo``: FocalLoss against DAALLoss on one data set."""

from .configs import Schedule
from .main import DemoFiles, run_demo
from .side_by_side import TrainingFailed

__all__ = ['DemoFiles', 'Schedule', 'TrainingFailed', 'run_demo']
