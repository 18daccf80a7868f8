"""One small world, written once for all tests that read it."""

from pathlib import Path

import pytest
from nuscenes.nuscenes import NuScenes

from aqr.synth import write_world

SEED = 3


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a tiny world with one training and one validation scene."""
    out = tmp_path_factory.mktemp("synth") / "world"
    write_world(out, scenes=2, seed=SEED, preset="tiny", workers=1)
    return out


@pytest.fixture(scope="session")
def devkit(world: Path) -> NuScenes:
    return NuScenes("v1.0-mini", str(world), verbose=False)
