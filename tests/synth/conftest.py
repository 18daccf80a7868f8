"""The devkit's reading of the synthetic world that the suite shares."""

from pathlib import Path

import pytest
from nuscenes.nuscenes import NuScenes


@pytest.fixture(scope="session")
def devkit(world: Path) -> NuScenes:
    return NuScenes("v1.0-mini", str(world), verbose=False)
