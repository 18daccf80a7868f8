"""Denoising queries: noised copies of the ground truth that the decoder learns to put right (arXiv 2203.01305)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from aqr import geometry
from aqr.config import Denoising
from aqr.detector.wrapping import Wrap, as_it_is


@dataclass(frozen=True)
class NoisedQueries:
    """G groups, each with one noised copy of every box of a sample, padded to N, that of the fullest sample or more.

    Attributes:
        reference_points: [B, G · N, 3] in [0, 1]³ of pc_range; group-major.
        boxes: [B, G · N, 9] the box that each copy came from; ones where padded.
        labels: [B, G · N] int64 class of that box.
        present: [B, G · N] bool, false where padded.
        near: [B, G · N] bool, present and close enough to its box to be classified as its class; the others are
            background.
        groups: G.
    """

    reference_points: Tensor
    boxes: Tensor
    labels: Tensor
    present: Tensor
    near: Tensor
    groups: int


def noised_queries(
    boxes: Tensor,
    labels: Tensor,
    box_counts: list[int],
    pc_range: Tensor,
    config: Denoising,
    generator: torch.Generator | None = None,
    multiple: int = 1,
    wrap: Wrap = as_it_is,
) -> NoisedQueries | None:
    """Displace every box's centre at random, uniformly within `noise_scale` times the box.

    Args:
        boxes: [N, 9] boxes of all samples behind one another.
        labels: [N] int64.
        box_counts: boxes of each sample.
        pc_range: [6].
        config: groups, noise_scale, split.
        generator: source of the noise, on any device; the default one if None.
        multiple: N is padded to a multiple of this, so that fewer shapes occur.
        wrap: makes of a function of tensors what is called instead, such as its compiled form.

    Returns:
        The queries, or None where there is no box or no group.
    """
    longest = max(box_counts, default=0)
    if not longest or not config.groups:
        return None
    device = boxes.device
    slots, known = padding(box_counts, multiple)
    rows = torch.where(known, slots, -1).to(device, non_blocking=True)
    source = generator.device if generator is not None else device
    places = len(box_counts), config.groups, rows.shape[1], 3
    noise = torch.rand(places, generator=generator, device=source).to(device, non_blocking=True)
    found = wrap(_displaced)(boxes, labels, rows, noise, pc_range, config.noise_scale, config.split)
    reference_points, boxes, labels, present, near = found
    return NoisedQueries(reference_points, boxes, labels, present, near, config.groups)


def _displaced(
    boxes: Tensor, labels: Tensor, rows: Tensor, noise: Tensor, pc_range: Tensor, noise_scale: float, split: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The tensors of `NoisedQueries`, from rows [B, N], -1 where padded, and noise [B, G, N, 3] in [0, 1)."""

    def of_groups(values: Tensor) -> Tensor:
        return values[:, None].expand(-1, noise.shape[1], *values.shape[1:]).flatten(1, 2)

    known, slots = rows >= 0, rows.clamp(min=0)
    boxes = of_groups(torch.where(known[..., None], boxes[slots], 1.0))
    labels = of_groups(torch.where(known, labels[slots], 0))
    known = of_groups(known)
    noise = 2 * noise.flatten(1, 2) - 1
    shift = noise * noise_scale * boxes[..., geometry.SIZE] / 2
    cos, sin = boxes[..., geometry.YAW].cos(), boxes[..., geometry.YAW].sin()
    along, across, up = shift.unbind(-1)
    shift = torch.stack([cos * along - sin * across, sin * along + cos * across, up], -1)
    unit = geometry.normalise(boxes[..., geometry.CENTER] + shift, pc_range).clamp(0, 1)
    near = known & (noise.norm(dim=-1) <= split)
    return unit, boxes, labels, known, near


def padding(counts: list[int], multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Where the items of each sample lie among all items: [B, N] int64 rows, and [B, N] bool, false where padded.

    N is the largest count, rounded up to a multiple of `multiple`.
    """
    count = torch.tensor(counts)
    column = torch.arange(-(-max(counts, default=0) // multiple) * multiple)
    present = column < count[:, None]
    return torch.where(present, (count.cumsum(0) - count)[:, None] + column, 0), present


def attention_mask(queries: int, noised: NoisedQueries, wrap: Wrap = as_it_is) -> Tensor:
    """Which query may look at which: nobody at a noised query but its own group.

    A real query that saw a noised one would read the answer off it, and groups would read it off each other. Padding
    is seen by itself alone.

    Args:
        queries: Q, real queries, which come first.
        noised: the G · N that follow.
        wrap: as in `noised_queries`.

    Returns:
        [B, 1, Q + G · N, Q + G · N] bool, true where the row may look at the column.
    """
    found: Tensor = wrap(_mask)(noised.present.unflatten(1, (noised.groups, -1)), queries)  # type: ignore[no-untyped-call]
    return found


def _mask(present: Tensor, queries: int) -> Tensor:
    """`attention_mask` from present [B, G, N]."""
    batch, groups, size = present.shape
    group = torch.arange(groups, device=present.device)[:, None].expand(-1, size).flatten()
    place = torch.arange(groups * size, device=present.device)
    own = (group[:, None] == group) & present.flatten(1)[:, None] | (place[:, None] == place)
    real = torch.ones(batch, queries, queries, dtype=torch.bool, device=present.device)
    return torch.cat([F.pad(real, (0, groups * size)), F.pad(own, (queries, 0), value=True)], 1)[:, None]
