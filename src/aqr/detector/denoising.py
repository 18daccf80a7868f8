"""Denoising queries: noised copies of the ground truth that the decoder learns to put right (arXiv 2203.01305)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from aqr import geometry
from aqr.config import Denoising
from aqr.detector.objects import Objects
from aqr.detector.wrapping import Wrap, as_it_is


@dataclass(frozen=True)
class NoisedQueries:
    """G groups, each with one noised copy of every object of a sample and as many places as the table of objects has.

    Attributes:
        reference_points: [B, G · N, 3] in [0, 1]³ of pc_range; group-major.
        boxes: [B, G · N, 9] the box that each copy came from; ones where there is none.
        labels: [B, G · N] int64 class of that box.
        present: [B, G · N] bool.
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


def drawn_noise(count: int, groups: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Where each copy of each box is moved to: [count, groups, 3], uniform in [0, 1).

    Drawn box by box, so that a copy's noise does not depend on how wide the table of objects is.

    Args:
        count: number of boxes.
        groups: G.
        generator: source of the noise, on any device; the default one if None.
        device: of the result.
    """
    source = generator.device if generator is not None else device
    return torch.rand(count, groups, 3, generator=generator, device=source).to(device, non_blocking=True)


def noised_queries(
    objects: Objects, noise: Tensor, pc_range: Tensor, config: Denoising, wrap: Wrap = as_it_is
) -> NoisedQueries:
    """Displace every box's centre, uniformly within `noise_scale` times the box.

    Args:
        objects: the ground truth.
        noise: [B, N, G, 3] of `drawn_noise`, in the places of the objects.
        pc_range: [6].
        config: noise_scale, split.
        wrap: makes of a function of tensors what is called instead, such as its compiled form.
    """
    truth = objects.boxes, objects.labels, objects.present
    found = wrap(_displaced)(*truth, noise, pc_range, config.noise_scale, config.split)
    reference_points, boxes, labels, present, near = found
    return NoisedQueries(reference_points, boxes, labels, present, near, noise.shape[2])


def _displaced(
    boxes: Tensor, labels: Tensor, known: Tensor, noise: Tensor, pc_range: Tensor, noise_scale: float, split: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The tensors of `NoisedQueries`."""

    def of_groups(values: Tensor) -> Tensor:
        return values[:, None].expand(-1, noise.shape[2], *values.shape[1:]).flatten(1, 2)

    boxes, labels, known = of_groups(boxes), of_groups(labels), of_groups(known)
    noise = 2 * noise.transpose(1, 2).flatten(1, 2) - 1
    shift = noise * noise_scale * boxes[..., geometry.SIZE] / 2
    cos, sin = boxes[..., geometry.YAW].cos(), boxes[..., geometry.YAW].sin()
    along, across, up = shift.unbind(-1)
    shift = torch.stack([cos * along - sin * across, sin * along + cos * across, up], -1)
    unit = geometry.normalise(boxes[..., geometry.CENTER] + shift, pc_range).clamp(0, 1)
    near = known & (noise.norm(dim=-1) <= split)
    return unit, boxes, labels, known, near


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
