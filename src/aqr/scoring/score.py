"""`aqr score`: a submission and a data set in, the devkit's metrics files out, and what comparing runs needs."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from aqr.data.index import open_index
from aqr.errors import InputError
from aqr.files import write_json
from aqr.scoring.bootstrap import difference, intervals
from aqr.scoring.boxes import GroundTruth
from aqr.scoring.breakdown import break_down
from aqr.scoring.ground_truth import load_ground_truth
from aqr.scoring.metrics import Metrics, evaluate
from aqr.scoring.pictures import draw_precision_recall, picture_format
from aqr.scoring.submission import read_submission

log = logging.getLogger(__name__)

DEFAULT_RESAMPLES = 1000


def score_files(
    results: str | Path,
    root: str | Path,
    version: str,
    split: str,
    out: str | Path | None = None,
    *,
    bootstrap: int = 0,
    baseline: str | Path | None = None,
    breakdown: bool = False,
    picture: str | Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a submission.

    Args:
        results: results.json, a nuScenes submission.
        root: data set folder.
        version: version folder in it.
        split: official split, all samples of which the submission must name.
        out: where to write the devkit's metrics_summary.json; metrics_details.json is written beside it. None writes
            nothing.
        bootstrap: number of resamples of the scenes for intervals under the key `bootstrap`; 0 for none.
        baseline: another submission for the same split. Under the key `baseline` come its `summary` and the
            `difference` to it, with intervals from `bootstrap` resamples, or from 1000 where that is 0.
        breakdown: whether to add the metrics of parts of the split under the key `breakdown`.
        picture: where to draw precision-recall curves (PNG, SVG or PDF); None draws nothing.
        seed: of the resamples.

    Returns:
        what is written to `out`: the devkit's keys, then those asked for.

    Raises:
        InputError: naming file and sample, where data set or submission cannot be scored.
    """
    if bootstrap < 0:
        raise InputError(f"bootstrap: {bootstrap} resamples cannot be drawn; give a number >= 0")
    if picture is not None:
        picture_format(Path(picture))
    index = open_index(root, version)
    truth = load_ground_truth(index, index.split(split))
    metrics, summary = _score(results, truth)
    other = None
    if bootstrap:
        summary["bootstrap"] = intervals(metrics, bootstrap, seed)
    if baseline is not None:
        other, other_summary = _score(baseline, truth)
        change = difference(metrics, other, bootstrap or DEFAULT_RESAMPLES, seed)
        summary["baseline"] = {"results": str(baseline), "summary": other_summary, "difference": change}
    if breakdown:
        summary["breakdown"] = break_down(metrics)
    if picture is not None:
        draw_precision_recall(metrics, picture, other)
    if out is not None:
        write_json(Path(out), summary)
        write_json(Path(out).with_name("metrics_details.json"), metrics.details())
    return summary


def _score(results: str | Path, truth: GroundTruth) -> tuple[Metrics, dict[str, Any]]:
    begin = time.perf_counter()
    predictions, meta = read_submission(results, truth.samples.tokens)
    read = time.perf_counter()
    metrics = evaluate(truth, predictions, str(results))
    log.info("%s: read in %.1f s, scored in %.1f s", results, read - begin, metrics.eval_time)
    return metrics, metrics.summary(meta)
