"""The line of figures above a picture."""

from __future__ import annotations

import numpy as np

from aqr.geometry import Floats
from aqr.view.scene import Detections, Scene


def caption(scene: Scene, shown: Detections | None, min_score: float, weights: Floats | None) -> str:
    """What the picture holds, in words and numbers."""
    parts = []
    if len(scene.points):
        parts.append(f"{len(scene.points):,} points")
    if len(scene.true_boxes) or scene.detections is None:
        parts.append(f"{len(scene.true_boxes)} true boxes")
    if shown is not None and scene.detections is not None:
        parts.append(f"{len(shown)} of {len(scene.detections)} predictions (score ≥ {min_score:g})")
    if weights is not None and np.isfinite(weights).any():
        finite = weights[np.isfinite(weights)]
        parts.append(f"weights {finite.min():.2f} … {finite.max():.2f}, mean {finite.mean():.2f}")
    return " · ".join(parts)
