"""The devkit's reading of the synthetic world that the suite shares."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def devkit(world: Path) -> Any:
    """Imported here, so that tests without it run where it is not installed, as on a GPU machine."""
    from nuscenes.nuscenes import NuScenes

    return NuScenes("v1.0-mini", str(world), verbose=False)
