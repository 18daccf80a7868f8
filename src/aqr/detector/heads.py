"""Task heads: what a query's state says about a box."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aqr import geometry
from aqr.detector.coding import CODE_DIM
from aqr.taxonomy import CLASSES

HEAD_DIM: Final = 64
CLASS_PRIOR: Final = -2.19
"""Start of the class bias: a probability of 0.1."""
PARTS: Final = [3, CODE_DIM - 3, len(CLASSES)]
"""Widths of what `TaskHeads.read` returns: place, the rest of the box, class logits."""
FIRST_OFFSET: Final = 0.01
"""Scale of the last weights of centre and height at the start: boxes begin on their reference points."""


class LayerwiseLinear(nn.Module):
    """The weights of a linear map for every decoder layer; `TaskHeads` applies them.

    Args:
        layers: L.
        inputs: width of the input.
        outputs: width of the output.
        bias: whether to add one.
    """

    def __init__(self, layers: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(layers, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(layers, 1, outputs)) if bias else None


class TaskHead(nn.Module):
    """The weights of a two-layer perceptron per decoder layer, with a layer norm inside; `TaskHeads` applies them.

    Args:
        layers: L.
        dim: C.
        outputs: width of the output.
        hidden_bias: whether the first layer has a bias.
    """

    def __init__(self, layers: int, dim: int, outputs: int, hidden_bias: bool = True) -> None:
        super().__init__()
        self.hidden = LayerwiseLinear(layers, dim, HEAD_DIM, hidden_bias)
        self.norm_weight = nn.Parameter(torch.ones(layers, 1, HEAD_DIM))
        self.norm_bias = nn.Parameter(torch.zeros(layers, 1, HEAD_DIM))
        self.out = LayerwiseLinear(layers, HEAD_DIM, outputs)


class TaskHeads(nn.Module):
    """Center, height, dim, rot, vel and class of every query after every decoder layer (as in CenterPoint and CMT).

    The centre is predicted relative to the query's reference point, in logit space, and so stays in pc_range.

    Args:
        layers: L.
        dim: C.
        pc_range: x_min, y_min, z_min, x_max, y_max, z_max, metres.
        hidden_bias: whether the first layer of each head has a bias.
    """

    pc_range: Tensor

    def __init__(self, layers: int, dim: int, pc_range: tuple[float, ...], hidden_bias: bool = True) -> None:
        super().__init__()
        self.register_buffer("pc_range", torch.tensor(pc_range), persistent=False)
        self.center = TaskHead(layers, dim, 2, hidden_bias)
        self.height = TaskHead(layers, dim, 1, hidden_bias)
        self.dim = TaskHead(layers, dim, 3, hidden_bias)
        self.rot = TaskHead(layers, dim, 2, hidden_bias)
        self.vel = TaskHead(layers, dim, 2, hidden_bias)
        self.cls_logits = TaskHead(layers, dim, len(CLASSES), hidden_bias)
        with torch.no_grad():
            self.center.out.weight.mul_(FIRST_OFFSET)
            self.height.out.weight.mul_(FIRST_OFFSET)
            assert self.cls_logits.out.bias is not None
            self.cls_logits.out.bias.fill_(CLASS_PRIOR)

    def forward(self, states: Tensor, reference_points: Tensor) -> tuple[Tensor, Tensor]:
        """Read the boxes off the queries' states, in float32.

        Args:
            states: [L, B, Q, C].
            reference_points: [B, Q, 3] in [0, 1]³ of pc_range.

        Returns:
            Class logits [L, B, Q, 10] and box codes [L, B, Q, 10] (see `aqr.detector.coding`).
        """
        with torch.autocast(states.device.type, enabled=False):
            layers, batch, queries, _ = states.shape
            found = self.read(states.float().flatten(1, 2)).view(layers, batch, queries, -1)
            offset, rest, logits = torch.split(found, PARTS, -1)
            unit = (offset + inverse_sigmoid(reference_points.float())).sigmoid()
            codes = torch.cat([geometry.denormalise(unit, self.pc_range), rest], -1)
        return logits, codes

    def read(self, states: Tensor) -> Tensor:
        """What all heads say, as two products: one small product per head starves a GPU.

        Args:
            states: [L, N, C].

        Returns:
            [L, N, 20]: center 2, height 1, dim 3, rot 2, vel 2, class logits 10; `PARTS` are their groups.
        """
        heads = [self.center, self.height, self.dim, self.rot, self.vel, self.cls_logits]
        hidden = _product(states, [head.hidden for head in heads])
        normed = F.layer_norm(hidden.view(*hidden.shape[:2], len(heads), HEAD_DIM), (HEAD_DIM,), eps=1e-6).flatten(-2)
        scale, shift = (torch.cat(t, -1) for t in zip(*((h.norm_weight, h.norm_bias) for h in heads), strict=True))
        outputs = [head.out for head in heads]
        widths = [head.weight.shape[-1] for head in outputs]
        ends = [sum(widths[: n + 1]) for n in range(len(widths))]
        # Each head reads its own hidden numbers and no others.
        blocks = [
            F.pad(head.weight, (end - width, ends[-1] - end))
            for head, width, end in zip(outputs, widths, ends, strict=True)
        ]
        bias = torch.cat([head.bias for head in outputs if head.bias is not None], -1)
        return torch.baddbmm(bias, (normed * scale + shift).relu(), torch.cat(blocks, 1))


def _product(x: Tensor, maps: list[LayerwiseLinear]) -> Tensor:
    """[L, N, inputs] to the outputs of all maps behind one another."""
    weights: list[Tensor] = [each.weight for each in maps]
    weight = torch.cat(weights, -1)
    biases: list[Tensor] = [each.bias for each in maps if each.bias is not None]
    return torch.baddbmm(torch.cat(biases, -1), x, weight) if biases else torch.bmm(x, weight)


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Logit of x clamped to [1e-5, 1 - 1e-5]."""
    return x.clamp(1e-5, 1 - 1e-5).logit()
