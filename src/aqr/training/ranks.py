"""What the ranks of a run tell each other in a training step: one sum over all of them."""

from __future__ import annotations

from typing import Final

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

ALIGNED: Final = 64
"""Every gradient starts at a multiple of this many numbers, for the fast paths of optimizers."""
MOST_NUMBERS: Final = 256
"""Room for numbers beside the gradients."""


class Processes(DDPStrategy):  # type: ignore[misc]
    """A process per GPU, started and connected by Lightning; gradients are averaged by `Mean`.

    PyTorch's `DistributedDataParallel` would watch every parameter's gradient come, search each step for parameters
    without one, and copy those whose memory format is not that of its buckets. That costs a host which is slow to
    launch kernels more than the sum itself takes, and no CUDA graph could hold it.
    """

    def configure_ddp(self) -> None:
        """Leave the module as it is."""


class Mean:
    """Averages gradients, running statistics of batch norms and a few numbers over all ranks, in one all-reduce.

    The gradients become views of one tensor. A parameter that a rank did not use counts as zero there; one that no
    rank used keeps no gradient. Batch norms in evaluation mode are left out: the mean of equal numbers may round to
    another one.

    Args:
        module: alike on all ranks, which `start` sees to; in training.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
        buffers = [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]
        self._statistics: list[Tensor] = buffers
        # Behind them, how many ranks use each parameter, and numbers.
        sizes = [-(-t.numel() // ALIGNED) * ALIGNED for t in (*self._parameters, *buffers)]
        room = sum(sizes) + len(self._parameters) + MOST_NUMBERS
        self._flat = torch.zeros(room, device=self._parameters[0].device)
        rest = self._flat[sum(sizes) :]
        self._users, self._said = rest[: len(self._parameters)], rest[len(self._parameters) :]
        starts = [sum(sizes[:n]) for n in range(len(sizes))]
        views = [
            self._flat.as_strided(t.shape, t.stride(), start)
            for t, start in zip((*self._parameters, *buffers), starts, strict=True)
        ]
        self._gradients, self._averaged = views[: len(self._parameters)], views[len(self._parameters) :]

    def start(self) -> None:
        """Give every rank the weights and buffers of the first."""
        for tensor in self._module.state_dict().values():
            dist.broadcast(tensor, 0)

    def __call__(self, numbers: Tensor) -> Tensor:
        """Average.

        Args:
            numbers: [K] float32 of this rank, K at most `MOST_NUMBERS`.

        Returns:
            The means of the numbers [K], valid until the next call.
        """
        found = [p.grad for p in self._parameters]
        used = [gradient is not None for gradient in found]
        present = [gradient for gradient in found if gradient is not None]
        torch._foreach_copy_([v for v, is_used in zip(self._gradients, used, strict=True) if is_used], present)
        idle = [v for v, is_used in zip(self._gradients, used, strict=True) if not is_used]
        if idle:
            torch._foreach_zero_(idle)
            self._users.copy_(torch.tensor(used))
        else:
            self._users.fill_(1.0)
        if self._statistics:
            torch._foreach_copy_(self._averaged, self._statistics)
        said = self._said[: len(numbers)]
        said.copy_(numbers)
        dist.all_reduce(self._flat)
        self._flat /= dist.get_world_size()
        if self._statistics:
            torch._foreach_copy_(self._statistics, self._averaged)
        # Only a rank that leaves a parameter idle has to ask, and wait, for whether another one uses it.
        anywhere = (self._users > 0).tolist() if idle else used
        for parameter, gradient, is_used in zip(self._parameters, self._gradients, anywhere, strict=True):
            parameter.grad = gradient if is_used else None
        return said
