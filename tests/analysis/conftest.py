"""The real logs."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def aqr_log(shared_dir: Path) -> Path:
    """4,004 iterations with max_weight_clamp 2.5 and residual_weight 0.6 on 8 GPUs, mmcv 1.6."""
    return shared_dir / "data" / "logs" / "aqr_clamp2.5_residual0.6.log"


@pytest.fixture(scope="session")
def no_aqr_log(shared_dir: Path) -> Path:
    """The same fine-tuning without AQR."""
    return shared_dir / "data" / "logs" / "no_aqr.log"
