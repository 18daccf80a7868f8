"""A fake detector with images whose AQR settings move, trained in processes of its own."""

import json
from pathlib import Path
from typing import Any

import torch
from run_fake import settle
from torch import Tensor
from training_fakes import FakeDetector, FakeLoader, FakeOutput, NoEvaluation

from aqr.batch import Batch
from aqr.config import Config, parse
from aqr.modulation import AQRModulation
from aqr.training import fit
from aqr.training.module import TrainingModule

FORWARD = [[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]


class SeeingDetector(FakeDetector):
    """The fake's BEV map serves as its image map too, and nothing in it is random."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.dropout = torch.nn.Dropout(0.0)
        self.aqr = AQRModulation(
            8,
            config.detector.pc_range,
            max_weight_clamp=config.aqr.renderer.max_weight_clamp,
            residual_weight=config.aqr.modulator.default_residual,
            gate=config.aqr.modulator.gate,
        )

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> FakeOutput:
        features: Tensor = self.norm(self.encoder(batch.points)).relu()
        bev = features.view(len(batch), 8, 8, 8).transpose(1, 3).contiguous()
        points = torch.linspace(0.55, 0.9, 9).view(3, 3).expand(len(batch), 3, 3)
        lidar2img = torch.diag(torch.tensor([16.0, 16, 1, 1])) @ torch.tensor(FORWARD)
        lidar2img[:2, 2] = 16.0
        routed = self.aqr(
            self.query.expand(len(batch), 3, 8),
            points,
            bev,
            bev[:, None],
            lidar2img.expand(len(batch), 1, 4, 4),
            (32, 32),
        )
        boxes = self.head(routed.bev.mean((2, 3)) + routed.images.mean((1, 3, 4)))
        output = FakeOutput(boxes, bev, None, routed, batch.points.isfinite().all())
        output.images = bev[:, None]  # type: ignore[assignment]
        return output


def config_of(aqr: dict[str, Any], **train: Any) -> Config:
    settings = {"steps": 24, "lr": 1e-3, "precision": "32", "log_every": 3, "stats_every": 6, "checkpoint_every": 5}
    modulator = {"modulator": {"gate": False, "residual_weight": 0.7}}
    return parse({"seed": 7, "data": {"workers": 0}, "aqr": modulator | aqr, "train": settings | train})


class StoppingLoader(FakeLoader):
    """Fails before a step, as a machine may."""

    stop_at = -1

    def __iter__(self) -> Any:
        for place, batch in enumerate(super().__iter__(), self.start_step):
            if place == self.stop_at:
                raise KeyboardInterrupt
            yield batch


def run(options: dict[str, Any], environment: dict[str, str] | None = None) -> None:
    """Train as the options say; every rank writes the settings of each step to settings<rank>.json."""
    settle(options, environment or {})
    trace: list[dict[str, float]] = []
    original = TrainingModule.training_step

    def step(self: TrainingModule, batch: Any, batch_idx: int) -> None:
        original(self, batch, batch_idx)
        assert self.result is not None
        trace.append(self.result.settings)
        Path(options["run_dir"]).mkdir(exist_ok=True)
        (Path(options["run_dir"]) / f"settings{self.trainer.global_rank}.json").write_text(json.dumps(trace))

    TrainingModule.training_step = step
    fit.train_loader = lambda config, rank, world_size, start: FakeLoader(config, [rank], start)  # type: ignore[assignment]
    fit.Detector = SeeingDetector  # type: ignore[misc]
    fit.Evaluation = NoEvaluation  # type: ignore[assignment,misc]
    fit.train(config_of(options["aqr"], **options["train"]), options["run_dir"])
