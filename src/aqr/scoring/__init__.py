"""The nuScenes detection metrics on arrays: exact, fast, and with what comparing two runs needs."""

from aqr.scoring.bootstrap import difference, intervals
from aqr.scoring.boxes import GroundTruth, Predictions, Racks, Samples
from aqr.scoring.breakdown import break_down
from aqr.scoring.ground_truth import load_ground_truth
from aqr.scoring.metrics import Metrics, evaluate
from aqr.scoring.pictures import draw_precision_recall
from aqr.scoring.score import score_files
from aqr.scoring.submission import read_submission, write_submission
from aqr.scoring.tables import score_tables

__all__ = [
    "GroundTruth",
    "Metrics",
    "Predictions",
    "Racks",
    "Samples",
    "break_down",
    "difference",
    "draw_precision_recall",
    "evaluate",
    "intervals",
    "load_ground_truth",
    "read_submission",
    "score_files",
    "score_tables",
    "write_submission",
]
