"""`aqr score`: a submission and a data set in, the devkit's metrics files out."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from aqr.data.index import open_index
from aqr.scoring.ground_truth import load_ground_truth
from aqr.scoring.metrics import evaluate
from aqr.scoring.submission import read_submission, replacing

log = logging.getLogger(__name__)


def score_files(
    results: str | Path, root: str | Path, version: str, split: str, out: str | Path | None = None
) -> dict[str, Any]:
    """Score a submission.

    Args:
        results: results.json, a nuScenes submission.
        root: data set folder.
        version: version folder in it.
        split: official split, all samples of which the submission must name.
        out: where to write the devkit's metrics_summary.json; metrics_details.json is written beside it. None writes
            nothing.

    Returns:
        what is written to `out`.

    Raises:
        InputError: naming file and sample, where data set or submission cannot be scored.
    """
    index = open_index(root, version)
    truth = load_ground_truth(index, index.split(split))
    predictions, meta = read_submission(results, truth.samples.tokens)
    metrics = evaluate(truth, predictions, str(results))
    summary = metrics.summary(meta)
    if out is not None:
        write_json(Path(out), summary)
        write_json(Path(out).with_name("metrics_details.json"), metrics.details())
    return summary


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all. NaN is written as the devkit writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        json.dump(content, file, indent=2)
