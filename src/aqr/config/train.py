"""Settings of training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from aqr.config.section import Count, NonNegative, Positive, Section


class Train(Section):
    steps: Count = 20_000
    """Optimizer steps in all."""
    lr: Positive = 1.4e-4
    """Learning rate at the start of the one-cycle schedule."""
    lr_peak: Annotated[float, Field(ge=1.0)] = 6.0
    """Peak over start; the schedule ends at lr · 1e-4."""
    warmup_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.4
    lr_mult: dict[str, NonNegative] = Field(default={"image_encoder.backbone": 0.01, "image_encoder.neck": 0.1})
    """Learning-rate factor by parameter-name prefix in the detector; the longest matching prefix counts."""
    only: tuple[str, ...] = ()
    """Parameter-name prefixes of what is trained, such as `aqr`; all else stays as it is. Empty trains everything."""
    weight_decay: NonNegative = 0.01
    grad_clip: Positive = 35.0
    precision: Annotated[Literal["32", "bf16", "16"], BeforeValidator(str)] = "bf16"
    compile: Literal[False, True, "graphs"] = False
    """Compile the detector with torch.compile: the first steps take minutes, the others less time. For GPUs; `graphs`
    also runs forward and backward pass as three CUDA graphs, which helps where the host is slow. It takes the graphs'
    memory, and does without them (as `true`) where AQR's settings move or convolutions are sparse."""
    devices: Count = 1
    log_every: Count = 50
    stats_every: Count = 1000
    """Steps between snapshots of AQR statistics."""
    checkpoint_every: Count = 1000
    val_every: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations on val_split; 0 evaluates at the end only."""
    init_from: Path | None = None
    """Checkpoint whose matching weights the detector starts from."""
