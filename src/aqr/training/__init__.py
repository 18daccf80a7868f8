"""Training and evaluation of the detector on Lightning, and the run folders they leave.

Importing this package imports Lightning, which takes seconds.
"""

from aqr.training.checkpoint import Checkpoint, LoadReport, load_weights
from aqr.training.evaluation import evaluate, load_detector, predict
from aqr.training.fit import train
from aqr.training.pictures import view_run
from aqr.training.robustness import evaluate_failures
from aqr.training.run_folder import RunFolder

__all__ = [
    "Checkpoint",
    "LoadReport",
    "RunFolder",
    "evaluate",
    "evaluate_failures",
    "load_detector",
    "load_weights",
    "predict",
    "train",
    "view_run",
]
