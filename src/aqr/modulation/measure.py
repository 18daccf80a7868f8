"""Measure: what AQR did to the features, pooled over all ranks.

Sufficient statistics (count, sum, sum of squares, minimum, maximum) are gathered on the device and reduced across
ranks, so that a figure is that of the whole batch, never one rank's. Nothing waits for the host before `summary`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from aqr.modulation.aqr import AQROutput

GROUPS = (
    "lidar_weights",
    "camera_weights",
    "weight_map_bev",
    "weight_map_pers",
    "modulation_bev",
    "modulation_pers",
)
GATES = ("lidar_gate", "camera_gate")
RELATIVE_EPSILON = 1e-8
"""Added to |F| in relative_change."""

AT_CLAMP = 1e-4
"""A map cell within this share of max_weight_clamp counts as standing at it."""

Figures = dict[str, float | list[int]]
"""Figures of one group by name."""


@dataclass
class Statistics:
    """Sufficient statistics of every group; rows follow `GROUPS`, then `GATES`, all float64.

    The reduction across ranks stands beside each state:

    Attributes:
        totals: [8, 4] count, sum, sum of squares, and one sum more: cells at the clamp for maps, |d|/(|F| + 1e-8) for
            modulation, 0 for weights and gates. Reduced by sum.
        lows: [8] minimum. Reduced by minimum.
        highs: [8] maximum; of |d| for modulation. Reduced by maximum.
        shapes: shape of the measured tensor on this rank; None where its sensor, or the gate, is absent.
        ranks: number of ranks pooled.
    """

    totals: Tensor
    lows: Tensor
    highs: Tensor
    shapes: tuple[tuple[int, ...] | None, ...]
    ranks: int = 1

    def all_reduce(self) -> Statistics:
        """Pool over all ranks of the default process group; without one, the same statistics."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return self
        totals, lows, highs = self.totals.clone(), self.lows.clone(), self.highs.clone()
        dist.all_reduce(totals, op=dist.ReduceOp.SUM)
        dist.all_reduce(lows, op=dist.ReduceOp.MIN)
        dist.all_reduce(highs, op=dist.ReduceOp.MAX)
        return Statistics(totals, lows, highs, self.shapes, dist.get_world_size())

    def summary(self) -> dict[str, Figures | float]:
        """Named figures by group, as in a line of aqr_stats.jsonl; groups of absent sensors are left out.

        - lidar_weights, camera_weights: mean, std, min, max, shape
        - weight_map_bev, weight_map_pers: the same and clamped_share, the share of cells at max_weight_clamp
        - modulation_bev, modulation_pers, with d = F' − F: mean_change = mean d, std_change = std d,
          max_change = max |d|, relative_change = mean(|d| / (|F| + 1e-8))
        - lidar_gate, camera_gate, where there is a gate: a = tanh(α), one number

        std divides by n − 1. Shapes are one rank's.
        """
        rows = torch.cat([self.totals, self.lows[:, None], self.highs[:, None]], 1).tolist()
        out: dict[str, Figures | float] = {}
        for name, shape, (count, total, squares, extra, low, high) in zip(
            GROUPS + GATES, self.shapes, rows, strict=True
        ):
            if shape is None:
                continue
            mean = total / count
            if name in GATES:
                out[name] = mean
                continue
            std = (max(squares - count * mean * mean, 0.0) / max(count - 1, 1)) ** 0.5
            if name.startswith("modulation"):
                out[name] = {
                    "mean_change": mean,
                    "std_change": std,
                    "max_change": high,
                    "relative_change": extra / count,
                }
                continue
            figures: Figures = {"mean": mean, "std": std, "min": low, "max": high, "shape": list(shape)}
            if name.startswith("weight_map"):
                figures["clamped_share"] = extra / count
            out[name] = figures
        return out


@torch.no_grad()
def measure(output: AQROutput, bev: Tensor | None, images: Tensor | None) -> Statistics:
    """Statistics of one forward pass on this rank.

    Args:
        output: what AQRModulation returned.
        bev: the features it was given, [B, C, Hb, Wb].
        images: likewise, [B, V, C, Hi, Wi].

    Returns:
        Statistics on the device of the output.
    """
    limit = output.max_weight_clamp * (1 - AT_CLAMP)

    def of_map(weight_map: Tensor | None) -> tuple[Tensor, Tensor] | None:
        return None if weight_map is None else (weight_map, (weight_map >= limit).double())

    def of_change(before: Tensor | None, after: Tensor | None) -> tuple[Tensor, Tensor] | None:
        if before is None or after is None:
            return None
        change = after.float() - before.float()
        return change, change.abs() / (before.float().abs() + RELATIVE_EPSILON)

    nothing = output.lidar_weights.new_zeros(())
    measured: list[tuple[Tensor, Tensor] | None] = [
        (output.lidar_weights, nothing),
        (output.camera_weights, nothing),
        of_map(output.bev_map),
        of_map(output.image_maps),
        of_change(bev, output.bev),
        of_change(images, output.images),
        None if output.lidar_gate is None else (output.lidar_gate, nothing),
        None if output.camera_gate is None else (output.camera_gate, nothing),
    ]
    totals, lows, highs, shapes = [], [], [], []
    for name, entry in zip(GROUPS + GATES, measured, strict=True):
        values, extra = (nothing, nothing) if entry is None else entry
        exact = values.double()
        count = exact.new_full((), float(values.numel() if entry is not None else 0))
        totals.append(torch.stack([count, exact.sum(), exact.square().sum(), extra.sum(dtype=torch.float64)]))
        lows.append(exact.min())
        highs.append((exact.abs() if name.startswith("modulation") else exact).max())
        shapes.append(None if entry is None else tuple(values.shape))
    return Statistics(torch.stack(totals), torch.stack(lows), torch.stack(highs), tuple(shapes))
