"""The original implementation's behaviour, fault by fault, on top of the library's AQR.

What the original did is known from its code: the renderer took the weights out of the graph, denoising queries were
rendered with the others, a query that no camera sees was drawn at cell (0, 0) of the first camera, the maps were added
to the residual (r·F + W·F) where its author reckons with r·F + (1 − r)·W·F, and nothing held the modulation back at the
start of a fine-tuning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aqr.batch import Batch
from aqr.config import Config
from aqr.detector import Detector
from aqr.detector.detector import DetectorOutput
from aqr.detector.inputs import Inputs
from aqr.modulation import AQRModulation, AQROutput
from aqr.modulation.sites import Sites


@dataclass(frozen=True)
class Faults:
    """Which of the original's faults an arm has; form and gate stand in its config.

    Attributes:
        cut: no gradient reaches the router.
        leak: denoising queries are rendered in training.
        pile: invisible queries are drawn at cell (0, 0) of the first camera.
    """

    cut: bool = True
    leak: bool = True
    pile: bool = True


class FaultyAQR(AQRModulation):
    """AQR with faults."""

    faults: Faults
    leaked: tuple[Tensor, Tensor] | None = None
    """Embedding and reference points of the denoising queries of the batch at hand."""

    def forward(
        self,
        query_embed: Tensor,
        reference_points: Tensor,
        bev: Tensor | None,
        images: Tensor | None,
        lidar2img: Tensor | None = None,
        image_size: tuple[int, int] | None = None,
        bev_position: Tensor | None = None,
        image_position: Tensor | None = None,
    ) -> AQROutput:
        """As `AQRModulation`; weights are those of the real queries."""
        count = query_embed.shape[1]
        if self.leaked is not None:
            query_embed = torch.cat([query_embed, self.leaked[0]], 1)
            reference_points = torch.cat([reference_points, self.leaked[1]], 1)
            self.leaked = None
        found: AQROutput = super().forward(
            query_embed, reference_points, bev, images, lidar2img, image_size, bev_position, image_position
        )
        return replace(
            found,
            lidar_weights=found.lidar_weights[:, :count],
            camera_weights=found.camera_weights[:, :count],
            visible=None if found.visible is None else found.visible[:, :, :count],
        )

    def _signals(self, logits: Tensor) -> Tensor:
        signals = super()._signals(logits)
        return signals.detach() if self.faults.cut else signals

    def _map(self, signal: Tensor, sites: Sites) -> Tensor:
        if self.faults.pile and sites.visible.shape[1] > 1:
            nowhere = ~sites.visible.any(1, keepdim=True)
            first = torch.arange(sites.visible.shape[1], device=nowhere.device)[:, None] == 0
            piled = nowhere & first
            sites = Sites(torch.where(piled[..., None], 0.5, sites.cells), sites.visible | piled, sites.size)
        return super()._map(signal, sites)


class FaultyDetector(Detector):
    """A detector whose AQR has faults; otherwise, weights included, the library's."""

    def __init__(self, config: Config, faults: Faults) -> None:
        super().__init__(config)
        assert self.aqr is not None
        self.aqr.__class__ = FaultyAQR
        assert isinstance(self.aqr, FaultyAQR)
        self.aqr.faults = faults

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> DetectorOutput:
        """As `Detector`. AQR is handed the denoising queries that the detector is about to draw."""
        faulty = self.aqr
        assert isinstance(faulty, FaultyAQR)
        if self.training and faulty.faults.leak and generator is not None:
            state = generator.get_state()
            truth = Inputs.of(batch, self.settings.denoising.groups, generator, 1).truth
            generator.set_state(state)
            _, noised = self._learned_from(truth)
            if noised is not None:
                size = (batch.images.shape[-2], batch.images.shape[-1])
                embedded = self.position(noised.reference_points, batch.lidar2img, size)
                faulty.leaked = (embedded, noised.reference_points)
        found: DetectorOutput = super().forward(batch, generator=generator)
        return found
