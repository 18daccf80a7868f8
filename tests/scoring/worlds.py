"""Splits made up from random numbers, as arrays."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from aqr.scoring.boxes import GroundTruth, Predictions, Racks, Samples
from aqr.taxonomy import CLASSES

RATES = np.array([0.4, 0.1, 0.03, 0.03, 0.04, 0.1, 0.05, 0.05, 0.13, 0.07])


def samples_of(ego: npt.ArrayLike, racks: Racks | None = None, samples_per_scene: int = 4) -> Samples:
    position = np.asarray(ego, dtype=np.float64)
    number = np.arange(len(position))
    return Samples(
        tokens=tuple(f"sample-{n:04d}" for n in number),
        ego=position,
        scene=number // samples_per_scene,
        racks=racks or Racks.none(),
        night=number // samples_per_scene % 2 == 1,
        rain=number // samples_per_scene % 3 == 1,
    )


def random_world(
    seed: int, samples: int = 6, objects: int = 30, detections: int = 80, noise: float = 0.6, tilted: bool = True
) -> tuple[GroundTruth, Predictions]:
    """Objects around moving vehicles, and detections of which most are noised copies of them.

    Args:
        seed: of everything.
        samples: number of samples.
        objects: per sample.
        detections: per sample.
        noise: standard deviation of a detection's position, metres.
        tilted: whether rotations are arbitrary quaternions of any length, or turns around z.
    """
    rng = np.random.default_rng(seed)
    ego = rng.uniform(0, 2000, (samples, 3))
    count = samples * objects
    sample = np.repeat(np.arange(samples), objects)
    radius, angle = 56 * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    away = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), rng.normal(size=count)])
    velocity = rng.normal(size=(count, 2)) * 3
    velocity[rng.random(count) < 0.1] = np.nan
    yaw = rng.uniform(-4, 4, count)
    label = rng.choice(len(CLASSES), count, p=RATES)
    racked = rng.choice(count, samples)
    racks = Racks(
        sample=sample[racked],
        translation=(ego[sample] + away)[racked],
        size=rng.uniform(1, 12, (samples, 3)),
        rotation=_about_z(rng.uniform(-4, 4, samples)),
    )
    truth = GroundTruth(
        samples=samples_of(ego, racks),
        sample=sample,
        translation=ego[sample] + away,
        size=rng.uniform(0.5, 5, (count, 3)),
        rotation=rng.normal(size=(count, 4)) if tilted else _about_z(yaw),
        velocity=velocity,
        label=label,
        attribute=rng.integers(-1, 8, count),
        num_points=rng.integers(0, 12, count),
        num_lidar_points=rng.integers(0, 40, count),
        visibility=rng.integers(1, 5, count),
    )

    found = detections_of(truth, seed, detections, noise)
    order = rng.permutation(samples)[found.sample]
    return truth, found.take(np.argsort(order, kind="stable"))


def detections_of(truth: GroundTruth, seed: int, per_sample: int, noise: float = 0.6) -> Predictions:
    """Noised copies of objects, 30 % of them moved anywhere near the vehicle, in no order within a sample."""
    rng = np.random.default_rng([seed, 1])
    counts = np.bincount(truth.sample, minlength=len(truth.samples))
    first = np.cumsum(counts) - counts
    of_sample = np.repeat(np.flatnonzero(counts), per_sample)
    total = len(of_sample)
    by_sample = np.argsort(truth.sample, kind="stable")
    source = by_sample[first[of_sample] + rng.integers(0, counts[of_sample])]
    copied = truth.take(source)
    wild = rng.random(total) < 0.3
    position = copied.translation + rng.normal(size=(total, 3)) * noise
    away = np.column_stack([rng.uniform(-56, 56, (int(wild.sum()), 2)), np.zeros(int(wild.sum()))])
    position[wild] = truth.samples.ego[of_sample[wild]] + away
    return Predictions(
        sample=of_sample,
        translation=position,
        size=copied.size * rng.uniform(0.7, 1.4, (total, 3)),
        rotation=copied.rotation + rng.normal(size=(total, 4)) * 0.1,
        velocity=np.nan_to_num(copied.velocity) + rng.normal(size=(total, 2)),
        label=np.where(rng.random(total) < 0.1, rng.choice(len(CLASSES), total, p=RATES), copied.label),
        attribute=np.where(rng.random(total) < 0.3, rng.integers(-1, 8, total), copied.attribute),
        score=np.round(rng.random(total) * np.where(wild, 0.8, 1.0), 2),
    )


def perfect(truth: GroundTruth, rows: npt.NDArray[np.integer] | None = None) -> Predictions:
    """Detections that equal some of the objects, all with score 1."""
    chosen = truth if rows is None else truth.take(rows)
    shared = {
        name: getattr(chosen, name)
        for name in ("sample", "translation", "size", "rotation", "velocity", "label", "attribute")
    }
    return Predictions(**shared, score=np.ones(len(chosen)))


def joined(*parts: Predictions) -> Predictions:
    """Rows of several behind one another."""
    return Predictions(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in dataclasses.fields(Predictions)
            if field.name != "num_points"
        }
    )


def _about_z(yaw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    nothing = np.zeros(len(yaw))
    return np.column_stack([np.cos(yaw / 2), nothing, nothing, np.sin(yaw / 2)])
