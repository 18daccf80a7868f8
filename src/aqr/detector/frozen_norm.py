"""Batch norms whose statistics stay as they were loaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A batch norm that scales and shifts by its loaded statistics, in training as in evaluation.

    State and parameters are those of `nn.BatchNorm2d`; weight and bias still learn. PyTorch's own backward pass of a
    batch norm in evaluation mode gives its gradient another memory format than its input has, which costs a channels-
    last network a copy per layer.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H, W]."""
        assert self.running_mean is not None
        assert self.running_var is not None
        if torch.compiler.is_compiling() or not input.is_cuda:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return _FrozenNorm.apply(  # type: ignore[no-any-return, no-untyped-call]
            input, self.running_mean, self.running_var, self.weight, self.bias, self.eps
        )


class _FrozenNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(values, mean, variance, weight)
        ctx.eps = eps
        return F.batch_norm(values, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, mean, variance, weight = ctx.saved_tensors
        inverse_std = (variance + ctx.eps).rsqrt()
        of_values = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_values = gradient * (weight * inverse_std).to(gradient.dtype)[:, None, None]
        if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
            axes = (0, 2, 3)
            of_bias = gradient.sum(axes, dtype=torch.float32)
            precise = gradient.float() if gradient.dtype is torch.float16 else gradient
            of_weight = ((precise * values).sum(axes, dtype=torch.float32) - mean * of_bias) * inverse_std
            of_weight, of_bias = of_weight.to(weight.dtype), of_bias.to(weight.dtype)
        return of_values, None, None, of_weight, of_bias, None


def freeze_norms(module: nn.Module) -> None:
    """Put a `FrozenBatchNorm2d` in the place of every `nn.BatchNorm2d` below a module; parameters stay the same."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps, momentum=child.momentum)
            frozen.weight, frozen.bias = child.weight, child.bias
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(frozen, buffer, getattr(child, buffer))
            setattr(module, name, frozen)
        else:
            freeze_norms(child)
