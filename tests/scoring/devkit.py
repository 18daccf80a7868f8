"""The official evaluator, nuscenes-devkit 1.2.0, run on our arrays: the oracle of these tests."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import DetectionEval

from aqr.scoring.boxes import Boxes, GroundTruth, Predictions
from aqr.taxonomy import ATTRIBUTES, CLASSES


class Tables:
    """The few records that the devkit's filters look up, made from arrays."""

    def __init__(self, truth: GroundTruth) -> None:
        self.records: dict[tuple[str, str], dict[str, Any]] = {}
        racks, samples = truth.samples.racks, truth.samples
        racks_of = defaultdict(list)
        for rack, sample in enumerate(racks.sample):
            racks_of[int(sample)].append(f"rack-{rack}")
            self.records["sample_annotation", f"rack-{rack}"] = {
                "category_name": "static_object.bicycle_rack",
                "translation": racks.translation[rack].tolist(),
                "size": racks.size[rack, [1, 0, 2]].tolist(),
                "rotation": racks.rotation[rack].tolist(),
            }
        for number, token in enumerate(samples.tokens):
            self.records["sample", token] = {"data": {"LIDAR_TOP": token}, "anns": racks_of[number]}
            self.records["sample_data", token] = {"ego_pose_token": token}
            ego = [*samples.ego[number].tolist(), 0.0][:3]
            self.records["ego_pose", token] = {"translation": ego}

    def get(self, table: str, token: str) -> dict[str, Any]:
        return self.records[table, token]


def eval_boxes(boxes: Boxes, tokens: tuple[str, ...]) -> EvalBoxes:
    """The devkit's boxes; samples in the order of their first row, as a submission has them."""
    result = EvalBoxes()
    for row in range(len(boxes)):
        token = tokens[int(boxes.sample[row])]
        count = getattr(boxes, "num_points", None)
        box = DetectionBox(
            sample_token=token,
            translation=tuple(boxes.translation[row].tolist()),
            size=tuple(boxes.size[row, [1, 0, 2]].tolist()),
            rotation=tuple(boxes.rotation[row].tolist()),
            velocity=tuple(boxes.velocity[row].tolist()),
            num_pts=-1 if count is None else int(count[row]),
            detection_name=CLASSES[int(boxes.label[row])],
            detection_score=float(boxes.score[row]) if isinstance(boxes, Predictions) else -1.0,
            attribute_name="" if boxes.attribute[row] < 0 else ATTRIBUTES[int(boxes.attribute[row])],
        )
        result.add_boxes(token, [box])
    for token in tokens:
        result.add_boxes(token, [])
    return result


def filtered(boxes: GroundTruth | Predictions, truth: GroundTruth) -> EvalBoxes:
    """What the devkit keeps."""
    tables, config = Tables(truth), config_factory("detection_cvpr_2019")
    kept = add_center_dist(tables, eval_boxes(boxes, truth.samples.tokens))
    return filter_eval_boxes(tables, kept, config.class_range) if len(boxes) else kept


def prepared(truth: GroundTruth, predictions: Predictions) -> DetectionEval:
    """The devkit's evaluator with boxes loaded and filtered."""
    evaluator = DetectionEval.__new__(DetectionEval)
    evaluator.cfg = config_factory("detection_cvpr_2019")
    evaluator.verbose = False
    evaluator.gt_boxes = filtered(truth, truth)
    evaluator.pred_boxes = filtered(predictions, truth)
    return evaluator


def score(truth: GroundTruth, predictions: Predictions) -> SimpleNamespace:
    """`summary` and `details` as the devkit writes them."""
    metrics, details = prepared(truth, predictions).evaluate()
    return SimpleNamespace(summary=metrics.serialize(), details=details.serialize())


def assert_same(ours: Any, theirs: Any, tolerance: float = 1e-9, path: str = "") -> None:
    """Equal keys in equal order, numbers within a tolerance, NaN equal to NaN."""
    if isinstance(theirs, dict):
        assert list(map(str, ours)) == list(map(str, theirs)), path
        for (_, a), (key, b) in zip(ours.items(), theirs.items(), strict=True):
            if key != "eval_time":
                assert_same(a, b, tolerance, f"{path}/{key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), path
        if theirs and isinstance(theirs[0], dict):
            for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                assert_same(a, b, tolerance, f"{path}/{place}")
            return
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=path)
    elif isinstance(theirs, int | float):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=path)
    else:
        assert ours == theirs, path
