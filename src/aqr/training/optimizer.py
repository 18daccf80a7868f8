"""AdamW with a learning rate per part, and the one-cycle schedule."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import nn

from aqr.config import Train
from aqr.detector.detector import lies_under

LAST_LR = 1e-4
"""Learning rate at the last step over the learning rate at the first."""

logger = logging.getLogger(__name__)


def one_cycle(step: int, config: Train) -> float:
    """Learning rate of one optimizer step.

    Half a cosine from `lr` at step 0 up to `lr · lr_peak` after `warmup_fraction` of the steps, half a cosine down to
    `lr · 1e-4` at the last one (the cyclic schedule of SECOND and CMT).

    Args:
        step: number of steps before this one, 0 … steps − 1.
        config: `train` section.
    """
    summit = config.warmup_fraction * config.steps
    if step < summit:
        start, end, progress = 1.0, config.lr_peak, step / summit
    else:
        start, end = config.lr_peak, LAST_LR
        progress = min((step - summit) / max(config.steps - 1 - summit, 1e-9), 1.0)
    return config.lr * (end + (start - end) * (1 + math.cos(math.pi * progress)) / 2)


def adamw(detector: nn.Module, config: Train) -> torch.optim.AdamW:
    """AdamW over the detector's trainable parameters.

    Parameters are grouped by the factor of the longest `lr_mult` prefix that matches their name (whole parts of the
    dotted name: `image_encoder.neck` matches `image_encoder.neck.weight`, not `image_encoder.necklace`). Biases,
    norms and gates are not decayed: parameters with fewer than two dimensions, or whose own name says bias or norm.
    Nor are reference points, which decay would draw into a corner of the range.
    Each group carries its factor as `lr_mult`.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    matched: set[str] = set()
    for name, parameter in detector.named_parameters():
        if not parameter.requires_grad:
            continue
        prefixes = [p for p in config.lr_mult if lies_under(name, p)]
        matched.update(prefixes)
        factor = config.lr_mult[max(prefixes, key=len)] if prefixes else 1.0
        groups.setdefault((factor, _decays(name, parameter)), []).append(parameter)
    for prefix in config.lr_mult.keys() - matched:
        logger.info("train.lr_mult: no trainable parameter of this detector lies under %s", prefix)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr_mult": factor,
                "lr": config.lr * factor,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
            for (factor, decayed), parameters in groups.items()
        ],
        lr=config.lr,
        fused=True,
    )


def resume(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Go on from the state of an optimizer of `adamw`, whichever kernels it was made for.

    A fused optimizer counts its steps where its parameters are; others do on the host, and their state stays there
    unless its groups are said to be fused before it is loaded.
    """
    groups = [group | {"fused": True} for group in state["param_groups"]]
    optimizer.load_state_dict(state | {"param_groups": groups})


def _decays(name: str, parameter: nn.Parameter) -> bool:
    own_name = name.rpartition(".")[2]
    return parameter.ndim > 1 and not any(word in own_name for word in ("bias", "norm", "reference_points"))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group `lr` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_mult"]
