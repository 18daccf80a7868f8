"""The compiled detector computes what the plain one computes, whatever a batch holds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from aqr.batch import Batch
from aqr.config import Config
from aqr.detector import Detector


@pytest.mark.parametrize("enabled", [False, True])
def test_compiling_changes_no_number_and_compiles_once_for_all_batches(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch], enabled: bool
) -> None:
    config = small_config(aqr={"enabled": enabled}, detector={"image": {"freeze_norm": True}})
    batches = [toy_batch(samples=2, boxes=8, seed=seed, clutter=300 + 50 * seed) for seed in range(2)]
    batches.append(toy_batch(samples=2, boxes=16, seed=2))

    def steps(detector: Detector) -> list[tuple[float, float]]:
        found = []
        for batch in batches:
            detector.zero_grad()
            output = detector(batch, generator=torch.Generator().manual_seed(1))
            loss = torch.stack(list(detector.losses(output, batch).values())).sum()
            loss.backward()
            norm = torch.nn.utils.get_total_norm([p.grad for p in detector.parameters() if p.grad is not None])
            found.append((loss.item(), norm.item()))
        return found

    def make() -> Detector:
        torch.manual_seed(0)
        return Detector(config).train()

    plain, compiled = make(), make()
    compiled.compile_parts(counting := CountingBackend())
    expected = steps(plain)
    assert steps(compiled) == [pytest.approx(pair, rel=1e-4) for pair in expected]
    assert list(compiled.state_dict()) == list(plain.state_dict())
    # Encoders, heads, decoder, both losses, costs, noise, mask and the cameras' inverses once; the embeddings of
    # queries, denoising queries and both grids.
    assert counting.graphs <= 15


class CountingBackend:
    """Runs what it is given, and counts the pieces."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward
