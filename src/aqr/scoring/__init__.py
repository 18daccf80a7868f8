"""The nuScenes detection metrics on arrays: exact, fast, and with what comparing two runs needs."""

from aqr.scoring.boxes import GroundTruth, Predictions, Racks, Samples
from aqr.scoring.ground_truth import load_ground_truth
from aqr.scoring.metrics import Metrics, evaluate
from aqr.scoring.score import score_files
from aqr.scoring.submission import read_submission, write_submission

__all__ = [
    "GroundTruth",
    "Metrics",
    "Predictions",
    "Racks",
    "Samples",
    "evaluate",
    "load_ground_truth",
    "read_submission",
    "score_files",
    "write_submission",
]
