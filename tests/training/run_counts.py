"""What two real ranks tell each other where they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from run_fake import settle
from torch import distributed as dist
from torch import nn

from aqr.detector.losses import mean_over_ranks
from aqr.training.ranks import Mean


def tell(options: dict[str, Any], environment: dict[str, str]) -> None:
    """Two steps in which only rank 1 uses a layer, and counts that are unequal; what came of it goes to a file."""
    settle(options, environment)
    rank = int(environment["LOCAL_RANK"])
    dist.init_process_group("gloo", rank=rank, world_size=int(environment["WORLD_SIZE"]))
    torch.manual_seed(rank)
    parts = nn.ModuleDict({"shared": nn.Linear(3, 2), "other": nn.Linear(3, 2), "idle": nn.Linear(3, 2)})
    mean = Mean(parts)
    mean.start()
    optimizer = torch.optim.AdamW(parts.parameters(), lr=0.1)
    steps = []
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        values = torch.randn(4, 3)
        (parts["shared"](values) + (parts["other"](values) if rank == 1 else 0)).square().sum().backward()
        own = gradients(parts)
        mean(torch.zeros(1))
        averaged = gradients(parts)
        optimizer.step()
        steps.append({"own": own, "averaged": averaged, "weights": clones(parts.state_dict())})
    counts = torch.tensor([3.0, 0.0, 5.0, 0.0]) if rank == 0 else torch.tensor([8.0, 1.0, 0.0, 0.0])
    torch.save({"steps": steps, "counts": mean_over_ranks(counts)}, Path(options["folder"]) / f"rank{rank}.pt")
    dist.destroy_process_group()


def gradients(parts: nn.Module) -> dict[str, torch.Tensor]:
    return clones({name: p.grad for name, p in parts.named_parameters() if p.grad is not None})


def clones(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
