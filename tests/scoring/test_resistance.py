"""Resistance ability against MultiCorrupt's formula worked by hand."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from aqr.scoring.resistance import draw_resistance, resistance, resistance_table


def summary(mean_ap: float, nds: float) -> dict[str, Any]:
    return {"mean_ap": mean_ap, "nd_score": nds}


@pytest.fixture
def figures() -> dict[str, Any]:
    graded = {1: summary(0.4, 0.5), 2: summary(0.3, 0.4), 3: summary(0.2, 0.3)}
    return resistance(summary(0.5, 0.6), {"dark": graded, "lidar_drop": {3: summary(0.1, 0.15)}})


def test_every_failure_counts_once_however_many_severities_it_has(figures: dict[str, Any]) -> None:
    dark, drop = figures["failures"]["dark"], figures["failures"]["lidar_drop"]
    assert [dark["severities"][s]["RA_mAP"] for s in "123"] == pytest.approx([0.8, 0.6, 0.4])
    assert dark["RA_mAP"] == pytest.approx(0.6)
    assert dark["RA_NDS"] == pytest.approx(2 / 3)
    assert drop["RA_NDS"] == pytest.approx(0.25)
    assert figures["mean"]["mRA_mAP"] == pytest.approx((0.6 + 0.2) / 2)
    assert figures["mean"]["mRA_NDS"] == pytest.approx((2 / 3 + 0.25) / 2)
    assert figures["clean"] == {"mAP": 0.5, "NDS": 0.6}


def test_published_means_come_out() -> None:
    """CMT's row of MultiCorrupt's table: ten resistances whose mean it states as 0.875."""
    kept = [0.786, 0.985, 0.948, 0.806, 0.974, 0.841, 0.983, 0.833, 0.809, 0.788]
    failed = {str(n): {1: summary(0.0, 0.729 * share)} for n, share in enumerate(kept)}
    assert round(resistance(summary(0.7, 0.729), failed)["mean"]["mRA_NDS"], 3) == 0.875


def test_nothing_can_be_kept_of_nothing(tmp_path: Path) -> None:
    figures = resistance(summary(0.0, 0.0), {"dark": {1: summary(0.0, 0.0)}})
    assert figures["mean"] == {"mRA_mAP": None, "mRA_NDS": None}
    draw_resistance(figures, tmp_path / "nothing.png")
    Console(quiet=True).print(resistance_table(figures))


def test_table_and_picture(figures: dict[str, Any], tmp_path: Path) -> None:
    said = io.StringIO()
    Console(width=100, file=said).print(resistance_table(figures))
    for part in ("lidar_drop", "0.4000", "60.0%", "25.0%", "mRA", "40.0%"):
        assert part in said.getvalue()
    draw_resistance(figures, tmp_path / "deep" / "resistance.png", "mini_val")
    assert Image.open(tmp_path / "deep" / "resistance.png").size[0] > 800
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["resistance.png"]
