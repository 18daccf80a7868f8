"""A detector and a loader that are small enough to train in a fraction of a second, with every trait that matters.

The detector has batch norm (buffers), dropout (global random state), noise from the given generator, several losses,
a router and a routing output; the loader is a pure function of (seed, step, rank).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from aqr.batch import Batch, Frame
from aqr.config import Config, parse
from aqr.geometry import Pose
from aqr.modulation import AQRModulation, AQROutput

POINTS = 64


def small_config(aqr: bool = True, **train: Any) -> Config:
    """A config whose network part the fake detector ignores."""
    settings = {"steps": 12, "lr": 1e-3, "precision": "32", "log_every": 2, "stats_every": 4, "checkpoint_every": 5}
    return parse({"seed": 7, "data": {"workers": 0}, "aqr": {"enabled": aqr}, "train": settings | train})


def make_batch(seed: int, step: int, rank: int = 0, size: int = 2) -> Batch:
    """Random points whose boxes are a fixed function of them."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + 101 * step + rank)
    points = torch.randn(size * POINTS, 5, generator=generator)
    means = points.view(size, POINTS, 5).mean(1)
    boxes = torch.cat([means, means[:, :4]], 1)
    identity = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))
    frame = Frame("token", 0, Pose.identity(), (0.0, 0.0, 0.0), identity)
    return Batch(
        points=points,
        point_counts=[POINTS] * size,
        images=torch.zeros(size, 0, 3, 32, 32, dtype=torch.uint8),
        lidar2img=torch.zeros(size, 0, 4, 4),
        boxes=boxes,
        labels=torch.zeros(size, dtype=torch.long),
        box_counts=[1] * size,
        frames=[replace(frame, sample_token=f"{step}-{rank}-{i}") for i in range(size)],
    )


def join(batches: Sequence[Batch]) -> Batch:
    """One batch of the samples of all."""
    values: dict[str, Any] = {}
    for field in fields(Batch):
        parts = [getattr(batch, field.name) for batch in batches]
        is_tensor = isinstance(parts[0], Tensor)
        values[field.name] = torch.cat(parts) if is_tensor else [entry for part in parts for entry in part]
    return Batch(**values)


@dataclass
class FakeLoader:
    """Batches from start_step on, of several ranks behind one another; `poisoned` (step, rank) hold a NaN point."""

    config: Config
    ranks: Sequence[int]
    start_step: int
    poisoned: frozenset[tuple[int, int]] = frozenset()
    dataset = SimpleNamespace(index=None)

    def __len__(self) -> int:
        return self.config.train.steps - self.start_step

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.start_step, self.config.train.steps):
            batches = [make_batch(self.config.seed, step, rank) for rank in self.ranks]
            for rank, batch in zip(self.ranks, batches, strict=True):
                if (step, rank) in self.poisoned:
                    batch.points[3, 0] = float("nan")
            yield join(batches)


@dataclass
class FakeOutput:
    boxes: Tensor
    bev: Tensor
    images: None
    aqr: AQROutput | None
    finite: Tensor


class FakeDetector(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 8)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(8, 9)
        self.aqr = None
        if config.aqr.enabled:
            self.query = nn.Parameter(torch.randn(3, 8))
            self.aqr = AQRModulation(8, config.detector.pc_range)

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> FakeOutput:
        features = self.dropout(self.norm(self.encoder(batch.points)).relu())
        bev = features.view(len(batch), 8, 8, 8).transpose(1, 3).contiguous()
        routed = None
        modulated = bev
        if self.aqr is not None:
            points = torch.linspace(0.3, 0.7, 9, device=bev.device).view(3, 3).expand(len(batch), 3, 3)
            routed = self.aqr(self.query.expand(len(batch), 3, 8), points, bev, None)
            modulated = routed.bev
        boxes = self.head(modulated.mean((2, 3)))
        if generator is not None:
            boxes = boxes + 0.01 * torch.randn(boxes.shape, generator=generator, device=boxes.device)
        return FakeOutput(boxes, bev, None, routed, batch.points.isfinite().all())

    def losses(self, output: FakeOutput, batch: Batch) -> dict[str, Tensor]:
        error = (output.boxes - batch.boxes).abs()
        return {"loss_cls": error[:, :2].mean(), "loss_bbox": error[:, 2:].mean(), "d0.loss_bbox": error.mean()}


class DeterministicDetector(FakeDetector):
    """Without batch norm, dropout and noise: the mean of two ranks' gradients is that of the joint batch."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.norm = nn.Identity()
        self.dropout = nn.Identity()

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> FakeOutput:
        return super().forward(batch)


class NoEvaluation:
    """Stands in for the scoring of a validation split."""

    split = "mini_val"

    @classmethod
    def of(cls, *_: Any) -> NoEvaluation:
        return cls()

    def check(self) -> None: ...

    def run(self, *_: Any) -> None:
        return None
