"""The synthetic LiDAR beside a real nuScenes sweep: every figure within a factor of two."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from aqr.synth.realism import QUANTILES, RANGES, Figures, measure, of_nuscenes, of_synthetic, table

ENOUGH = 4


@cache
def synthetic() -> Figures:
    return of_synthetic(14)


@pytest.fixture(scope="module")
def real(real_frame: Path) -> Figures:
    return of_nuscenes(real_frame)


def within_a_factor_of_two(real: float, synth: float) -> bool:
    return real / 2 <= synth <= real * 2


def test_rays_and_empty_rays(real: Figures) -> None:
    assert synthetic().rays == real.rays == 34_688
    assert within_a_factor_of_two(real.empty, synthetic().empty)


def test_ranges(real: Figures) -> None:
    for low, a, b in zip(RANGES, real.ranges, synthetic().ranges, strict=False):
        assert within_a_factor_of_two(a, b), f"from {low} m: {a} real, {b:.0f} synthetic"


def test_intensities(real: Figures) -> None:
    for share, a, b in zip(QUANTILES, real.intensities, synthetic().intensities, strict=True):
        assert within_a_factor_of_two(a, b), f"{share:.0%}: {a} real, {b:.0f} synthetic"


def test_points_per_box(real: Figures) -> None:
    cells = {cell: counts for cell, counts in real.boxes.items() if len(counts) >= ENOUGH}
    assert len(cells) >= 4
    for cell, counts in cells.items():
        assert within_a_factor_of_two(float(np.mean(counts)), float(np.mean(synthetic().boxes[cell]))), cell


def test_the_real_frame_holds_what_is_known_of_it(real: Figures) -> None:
    assert real.ranges.sum() == 34_688
    assert len(real.boxes["truck", 2]) == 1, "the truck with 495 points stands between 10 and 20 m"
    assert 495 < real.boxes["truck", 2][0] < 4 * 495
    assert 40 <= sum(len(counts) for counts in real.boxes.values()) <= 65, "68 boxes, 3 without points, some too far"


def test_figures_of_a_sweep_counted_by_hand() -> None:
    points = np.array([[0.1, 0, 0, 9, 0], [0, 4, 0, 20, 1], [0, 0, 8, 40, 2], [12, 0, 0, 40, 3]], np.float32)
    figures = measure([points], [("car", 20.0, 5), ("car", 5.0, 0), ("car", 60.0, 9)])
    assert figures.empty == 0.25
    assert figures.ranges.tolist() == [1, 1, 0, 1, 1, 0, 0, 0, 0, 0]
    assert figures.intensities.tolist() == [30, 40, 40, 40]
    assert figures.boxes == {("car", 3): [20.0]}
    assert "| rays per sweep | 4 | 4 | 1.00 |" in table(figures, figures)
