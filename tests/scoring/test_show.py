"""What people see: tables and pictures."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tests.scoring.worlds import random_world

from aqr.scoring import break_down, difference, draw_precision_recall, evaluate, intervals, score_tables


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    truth, found = random_world(60, samples=16, objects=50)
    metrics = evaluate(truth, found)
    other = evaluate(truth, dataclasses.replace(found, translation=found.translation + 0.3))
    content = metrics.summary() | {
        "bootstrap": intervals(metrics, 20),
        "baseline": {"summary": other.summary(), "difference": difference(metrics, other, 20)},
        "breakdown": break_down(metrics),
    }
    read: dict[str, Any] = json.loads(json.dumps(content))
    return read


def printed(summary: dict[str, Any], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    for table in score_tables(summary, "aqr"):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_tables_say_every_figure(summary: dict[str, Any]) -> None:
    lines = printed(summary, 80)
    assert not any("…" in line for line in lines)
    words = "\n".join(lines)
    for figure in (summary["mean_ap"], summary["nd_score"], *summary["tp_errors"].values()):
        assert f"{figure:.4f}" in words
    for name, ap in summary["mean_dist_aps"].items():
        line = next(line for line in lines if f" {name} " in line)
        assert f"{ap:.3f}" in line
    assert f"{summary['baseline']['difference']['mean_ap']['low']:.4f}" in words
    cone = next(line for line in lines if " traffic_cone " in line)
    assert cone.count("–") == 3
    for part in summary["breakdown"]:
        assert any(part["name"] in line and str(part["objects"]) in line for line in lines)


def test_plain_metrics_give_two_tables(summary: dict[str, Any]) -> None:
    plain = {key: value for key, value in summary.items() if key not in ("bootstrap", "baseline", "breakdown")}
    assert len(score_tables(plain)) == 2


def test_a_picture_shows_the_curves(tmp_path: Path) -> None:
    truth, found = random_world(61)
    metrics = evaluate(truth, found)
    nothing = evaluate(truth, found.take(np.zeros(0, dtype=np.int64)))
    paths = [tmp_path / "new" / name for name in ("a.png", "b.png", "c.png")]
    draw_precision_recall(metrics, paths[0])
    draw_precision_recall(nothing, paths[1])
    draw_precision_recall(metrics, paths[2], baseline=nothing)
    pictures = [np.asarray(Image.open(path).convert("RGB"), dtype=np.int64) for path in paths]
    assert pictures[0].shape[1] > pictures[0].shape[0] > 500
    red = [np.count_nonzero((p[..., 0] > 150) & (p[..., 1] < 90) & (p[..., 2] < 100)) for p in pictures]
    assert red[0] > red[1] > 0
    assert sorted(p.name for p in paths[0].parent.iterdir()) == ["a.png", "b.png", "c.png"]
    draw_precision_recall(metrics, tmp_path / "curves.svg")
    assert "<svg" in (tmp_path / "curves.svg").read_text()[:2000]
