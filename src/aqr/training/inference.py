"""Detections of a whole split, gathered from all ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from rich.progress import Progress

from aqr.batch import Frame
from aqr.data.loader import Batches
from aqr.detector import Detections, Detector
from aqr.training.module import autocast


@dataclass(frozen=True)
class SampleDetections:
    """What the detector found in one sample.

    Attributes:
        frame: the sample.
        boxes: [n, 9] float64, unaugmented LiDAR frame.
        scores: [n] float64.
        labels: [n] int64.
    """

    frame: Frame
    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]

    @classmethod
    def of(cls, frame: Frame, detections: Detections) -> SampleDetections:
        """What a detector decoded, in host memory."""
        return cls(
            frame=frame,
            boxes=detections.boxes.double().cpu().numpy(),
            scores=detections.scores.double().cpu().numpy(),
            labels=detections.labels.cpu().numpy(),
        )


@torch.no_grad()
def detect(
    detector: Detector, batches: Batches, device: torch.device, precision: str, bar: Progress
) -> dict[str, SampleDetections]:
    """Run a detector over batches in evaluation mode; its mode is put back afterwards.

    Args:
        detector: on `device`.
        batches: unaugmented batches of this rank.
        device: where to compute.
        precision: 32, bf16 or 16.
        bar: shows how far it is.

    Returns:
        Detections of this rank's samples by sample token.
    """
    was_training = detector.training
    detector.eval()
    found: dict[str, SampleDetections] = {}
    task = bar.add_task("detecting", total=len(batches))
    try:
        for batch in batches:
            on_device = batch.to(device)
            # Compiled for training; another mode and other batch sizes are not worth compiling again.
            with autocast(device, precision), torch.compiler.set_stance("force_eager"):
                decoded = detector.decode(detector(on_device))
            for frame, detections in zip(batch.frames, decoded, strict=True):
                found[frame.sample_token] = SampleDetections.of(frame, detections)
            bar.advance(task)
    finally:
        detector.train(was_training)
        bar.remove_task(task)
    return found


def gather(found: dict[str, SampleDetections]) -> dict[str, SampleDetections] | None:
    """All ranks' detections on rank 0, each sample once; None on the other ranks."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return found
    is_first = dist.get_rank() == 0
    parts: list[dict[str, SampleDetections] | None] = [None] * dist.get_world_size()
    dist.gather_object(found, parts if is_first else None)
    if not is_first:
        return None
    merged: dict[str, SampleDetections] = {}
    for part in reversed(parts):
        merged |= part or {}
    return merged
