"""Clipping and the optimizer's step, on gradients that may turn out not to be finite."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aqr.detector import Detector
from aqr.detector.transfer import host_like, on_its_way
from aqr.modulation import AQRModulation


class Update:
    """Changes the weights where every number is finite, and leaves weights and optimizer alone where one is not.

    The GPU decides: the host, which has to read the numbers for its records, launches the update before they arrive.

    Args:
        detector: whose parameters hold gradients.
        optimizer: fused; the gradients go with the update.
        grad_clip: largest norm.
    """

    def __init__(self, detector: Detector, optimizer: torch.optim.AdamW, grad_clip: float) -> None:
        self._detector, self._optimizer, self._grad_clip = detector, optimizer, grad_clip

    def __call__(self, numbers: Tensor) -> Callable[[], list[float]]:
        """Clip and step.

        Args:
            numbers: [K] that must be finite as well.

        Returns:
            What waits for the norm of all gradients before clipping, that of `router_grad_norm` and the numbers. The
            update took place if, and only if, all of these are finite.
        """
        parameters = [p for p in self._detector.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        values = torch.cat([torch.stack([norm.float(), router_grad_norm(self._detector.aqr, norm)]), numbers])
        unusable = (~values.isfinite().all()).float()
        arrived = on_its_way(values, host := host_like(values))
        torch.nn.utils.clip_grads_with_norm_(parameters, self._grad_clip, norm)
        # What a GradScaler tells a fused optimizer; the optimizer then neither counts the step nor takes it.
        self._optimizer.found_inf = unusable  # type: ignore[attr-defined]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

        def read() -> list[float]:
            arrived()
            return host.tolist()

        return read


def router_grad_norm(aqr: AQRModulation | None, like: Tensor) -> Tensor:
    """Norm of the gradients of all that decides the weights: every parameter of AQR but its gates.

    With `context` the sensor context counts as well, with residuals by class their head.

    Args:
        aqr: after the backward pass.
        like: a tensor on the device of the gradients.

    Returns:
        A scalar, float32; 0 without AQR and where no parameter has a gradient.
    """
    gates = () if aqr is None else (aqr.lidar_gate, aqr.camera_gate)
    parameters = () if aqr is None else aqr.parameters()
    gradients = [p.grad for p in parameters if p.grad is not None and all(p is not gate for gate in gates)]
    if not gradients:  # the norm of nothing would lie on the CPU
        return like.new_zeros((), dtype=torch.float32)
    return torch.nn.utils.get_total_norm(gradients).float()
