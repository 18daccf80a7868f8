"""A frozen detector with padded points detects what the detector itself detects."""

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch

from aqr.batch import Batch
from aqr.config import Config
from aqr.detector import Detections, Detector, GraphedDetector
from aqr.detector.heads import TaskHeads
from aqr.detector.position import BevEmbedding

MakeConfig = Callable[..., Config]
MakeBatch = Callable[..., Batch]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def detect(detector: Detector, batch: Batch, precision: str) -> list[Detections]:
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16, precision == "bf16"):
        return detector.decode(detector(batch))


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("samples", [1, 3])
def test_it_detects_what_the_detector_detects(
    small_config: MakeConfig, toy_batch: MakeBatch, precision: str, samples: int
) -> None:
    torch.manual_seed(0)
    detector = Detector(small_config(aqr={"enabled": True}, detector={"image": {"freeze_norm": True}})).to(DEVICE)
    detector.train()(toy_batch(samples=2).to(DEVICE))
    detector.eval()
    batches = [toy_batch(samples=samples, boxes=n, seed=n, clutter=600 - 40 * n).to(DEVICE) for n in (2, 7, 0)]
    graphed = GraphedDetector(detector, batches[0], precision)
    before = copy.deepcopy(detector.state_dict())
    for batch in batches:
        # Two points fell out on the way: rows of the earlier batch must not show through.
        if len(batch) == 1:
            batch = dataclasses.replace(batch, points=batch.points[:-2], point_counts=[batch.point_counts[0] - 2])
        for found, expected in zip(graphed(batch), detect(detector, batch, precision), strict=True):
            assert len(found) == len(expected) > 0
            tight = 1e-5 if precision == "32" else 2e-2
            torch.testing.assert_close(found.scores, expected.scores, atol=tight, rtol=tight)
            if precision == "32":
                torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-3, rtol=1e-4)
                assert torch.equal(found.query_index, expected.query_index)
    earlier = graphed(batches[1])
    with torch.no_grad():
        detector.reference_points.zero_()
    torch.testing.assert_close(graphed(batches[1])[0].scores, earlier[0].scores)
    assert not torch.equal(before["reference_points"], detector.reference_points)


def test_it_computes_what_does_not_change_once_and_no_earlier_layer(
    small_config: MakeConfig, toy_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(small_config(detector={"num_layers": 3})).to(DEVICE).eval()
    graphed = GraphedDetector(detector, batch := toy_batch(samples=2, clutter=100).to(DEVICE), "32")
    embedded = []
    monkeypatch.setattr(BevEmbedding, "forward", lambda self, xy: embedded.append(xy.shape) or xy.new_zeros(1))
    monkeypatch.setattr(TaskHeads, "forward", lambda self, states, places: _stop(states.shape))
    graphed._graph = None
    with pytest.raises(_Stopped) as stopped:
        graphed(batch)
    cells = graphed._detector.position.bev.kept
    assert stopped.value.args[0][:2] == (1, 2)
    assert cells is not None
    # Reference points alone are embedded anew.
    assert embedded == [(2, detector.reference_points.shape[0], 2)]


class _Stopped(Exception):
    pass


def _stop(shape: torch.Size) -> None:
    raise _Stopped(shape)


def test_batches_of_another_size_are_refused(small_config: MakeConfig, toy_batch: MakeBatch) -> None:
    detector = Detector(small_config()).to(DEVICE).eval()
    graphed = GraphedDetector(detector, toy_batch(samples=1, clutter=100).to(DEVICE), "32")
    with pytest.raises(ValueError, match="points are more than"):
        graphed(toy_batch(samples=1, clutter=5000).to(DEVICE))
    with pytest.raises(ValueError, match="images must be"):
        graphed(toy_batch(samples=2, clutter=10).to(DEVICE))


def test_cmt_has_no_fixed_shapes(small_config: MakeConfig, toy_batch: MakeBatch) -> None:
    style = {"style": "cmt", "cmt": {"sparse_shape": [41, 128, 128], "voxel_size": [0.8, 0.8, 0.2]}}
    detector = Detector(small_config(detector=style, sensors={"cameras": []})).eval()
    with pytest.raises(ValueError, match="sparse convolutions"):
        GraphedDetector(detector, toy_batch(samples=1, views=0), "32")
