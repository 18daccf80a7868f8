"""A residual per class: the router estimates what stands at each query, and how much is kept follows from that.

With p_c the probability of class c (sigmoid, as in the detector's own heads), r_c its residual and r_0 the default, a
query asks for r_q = r_0 + Σ_c p_c (r_c − r_0) / max(1, Σ_c p_c): the expected residual, the probability that is left
going to the default. The residual map averages where queries overlap, each counting as much as it is sure of an
object, s_q = min(1, Σ_c p_c):

    R = r_0 + Σ_q k_q (r_q − r_0) / max(1, Σ_q k_q s_q)

with peak-normalised kernels k as for the weights, so that R = r_0 where no query is and R never leaves the range of
the residuals. Where all of them are alike, R is that number exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from aqr.modulation.render import RenderMethod, splat
from aqr.modulation.sites import Sites

CLASS_PRIOR: Final = 0.01
"""Probability of every class before training: a new head asks for the default (arXiv 1708.02002, section 4.1)."""


class ClassResidual(nn.Module):
    """Class head of the router, and the residual that its estimate asks for.

    The estimate is detached where it becomes a residual: the head learns from the classes alone, so that the residual
    of a class stays what it was set to.
    """

    residuals: Tensor

    def __init__(self, channels: int, residuals: Sequence[float]) -> None:
        """Args:
        channels: width of the router's state.
        residuals: one number in [0, 1] per class.
        """
        super().__init__()
        self.register_buffer("residuals", torch.tensor(residuals, dtype=torch.get_default_dtype()), persistent=False)
        self.logits = nn.Linear(channels, len(residuals))
        nn.init.constant_(self.logits.bias, -math.log(1 / CLASS_PRIOR - 1))

    def forward(self, state: Tensor) -> Tensor:
        """[B, Q, C] state of the router to [B, Q, classes] logits."""
        logits: Tensor = self.logits(state)
        return logits

    def ask(self, logits: Tensor, default: float) -> tuple[Tensor, Tensor]:
        """What every query asks for.

        Args:
            logits: [B, Q, classes].
            default: r_0.

        Returns:
            r_q − r_0 and s_q, both [B, Q], detached.
        """
        probability = logits.detach().to(self.residuals.dtype).sigmoid()
        total = probability.sum(-1)
        offset = probability @ (self.residuals - default) / total.clamp(min=1)
        return offset, total.clamp(max=1)


def residual_map(
    offset: Tensor, sureness: Tensor, sites: Sites, method: RenderMethod, sigma: float, default: float
) -> Tensor:
    """R, see above; `direct` takes the query of a cell that asks for the most to be kept.

    Args:
        offset: r_q − r_0 [B, Q].
        sureness: s_q [B, Q] in [0, 1].
        sites: positions of the queries in V maps.
        method: kernel, see `aqr.modulation.render.splat`.
        sigma: its width, cells.
        default: r_0.

    Returns:
        [B, V, H, W].
    """
    asked = splat(offset[:, None].expand_as(sites.visible), sites, method, sigma, "peak")
    if method == "direct":
        return default + asked
    mass = splat(sureness[:, None].expand_as(sites.visible), sites, method, sigma, "peak")
    return default + asked / mass.clamp(min=1)
