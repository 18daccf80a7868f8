"""Failures for training: modality dropout and failure augmentation."""

from __future__ import annotations

import numpy as np

from aqr.config import Failures
from aqr.data.failures.catalogue import KIND_OF, Failure
from aqr.data.failures.harm import Harm


def draw_harm(config: Failures, random: np.random.Generator) -> Harm | None:
    """What fails in one presentation of a sample: at most one thing, so that probabilities are shares of samples.

    Args:
        config: probabilities.
        random: a generator of its own, so that other augmentation stays what it is without failures.
    """
    choices = [
        ("lidar_drop", config.lidar_dropout, (3, 3)),
        ("missing_camera", config.camera_dropout, (3, 3)),
        *((entry.name, entry.probability, entry.severity) for entry in config.augmentation),
    ]
    coin = random.random()
    level = random.random()
    entropy = tuple(random.integers(2**32, size=4).tolist())
    for name, probability, (low, high) in choices:
        if coin < probability:
            severities = [severity for severity in KIND_OF[name].severities if low <= severity <= high]
            return Harm(Failure(name, severities[int(level * len(severities))]), entropy)
        coin -= probability
    return None
