"""Auxiliary targets that tell a router which sensor to trust."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from aqr.batch import Batch
from aqr.detector import Detector
from aqr.detector.assignment import assign
from aqr.detector.coding import encode
from aqr.detector.detector import DetectorOutput
from aqr.geometry import X, Y

WEIGHT: Final = 0.25
REACH: Final = 2.0
"""Metres; a prediction this far off counts 1/e."""
BLACK: Final = 8
"""Largest value of an image that is as good as black."""


def log_weights(output: DetectorOutput) -> Tensor:
    """[L, B, Q, 2] log weights of a detector with AQR, one entry of L where all layers share them."""
    assert output.aqr is not None
    if output.aqr.log_weights is not None:
        return output.aqr.log_weights
    both = torch.stack([output.aqr.lidar_weights, output.aqr.camera_weights], -1)
    return both.clamp(min=1e-4).log()[None]


def alive(detector: Detector, output: DetectorOutput, batch: Batch) -> dict[str, Tensor]:
    """A dead sensor is to weigh less than the other one.

    Dead is what the batch itself shows: a sample without a point, a query all of whose cameras are black. No label is
    used but what the failure augmentation did, which only a simulation knows for certain.

    Returns:
        loss_router, softplus of the margin by which the dead sensor outweighs the other.
    """
    found = log_weights(output)
    assert output.aqr is not None
    no_lidar = torch.tensor([count == 0 for count in batch.point_counts]).to(found.device, non_blocking=True)
    dead = no_lidar[:, None].expand(found.shape[1:3])
    black = batch.images.flatten(2).amax(-1) < BLACK
    visible = output.aqr.visible
    assert visible is not None
    sighted = (visible & ~black[..., None]).any(1)
    blind = visible.any(1) & ~sighted
    margin = found[..., 0] - found[..., 1]
    of_lidar = F.softplus(margin) * (dead & sighted)
    of_camera = F.softplus(-margin) * (blind & ~dead)
    return {"loss_router": WEIGHT * (of_lidar + of_camera).sum() / max(margin.numel(), 1)}


def evidence(detector: Detector, output: DetectorOutput, batch: Batch) -> dict[str, Tensor]:
    """A sensor whose own prediction of an object was worse is to weigh less where that object is.

    The queries that read one sensor alone (`detector.loss.solo`) predict every object as well. With p the probability
    that such a prediction gives the object's class and d its distance, a sensor is right by q = p·exp(−d/2 m); the
    log weights that the fused query of that object should have are ln q of each sensor, less the larger of the two,
    as far down as max_weight_clamp allows.

    Returns:
        loss_router, smooth L1.
    """
    found = log_weights(output)
    solo = output.solo
    assert solo is not None
    assert output.aqr is not None
    assert output.objects is not None
    labels, target = output.objects.labels, encode(output.objects.boxes)
    with torch.no_grad(), torch.autocast(batch.device.type, enabled=False):
        last, *alone = assign(detector.costs(output)[-3:].cpu(), batch.box_counts).to(batch.device)
        right = solo.codes.new_zeros(2, *labels.shape)
        for sensor, matched in enumerate(alone):
            sample, place = (matched >= 0).nonzero().unbind(1)
            query = matched[sample, place]
            chance = solo.logits[sensor, sample, query, labels[sample, place]].float().sigmoid().clamp(min=1e-4)
            off = (solo.codes[sensor, sample, query] - target[sample, place])[:, [X, Y]].float().norm(dim=-1)
            right[sensor, sample, place] = chance.log() - off / REACH
        wanted = (right - right.amax(0)).clamp(min=-0.95 * math.log(output.aqr.max_weight_clamp))
    sample, place = (last >= 0).nonzero().unbind(1)
    wanted = wanted[:, sample, place].T.expand(len(found), -1, -1)
    off = F.smooth_l1_loss(found[:, sample, last[sample, place]].float(), wanted, reduction="none")
    return {"loss_router": WEIGHT * off.mean(-1).sum() / (len(found) * max(len(batch.boxes), 1))}
