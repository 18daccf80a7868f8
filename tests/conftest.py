"""Fixtures for every part of the suite."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# The GPU kernels run in Triton's interpreter where there is no GPU; it has to be asked for before they are imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# An example may take long on a busy machine; `timeout` in pyproject.toml ends what never ends.
settings.register_profile("aqr", deadline=None)
settings.load_profile("aqr")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real data (one nuScenes keyframe, two training logs); named by AQR_SHARED."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("AQR_SHARED", default))
    if not (folder / "data").is_dir():
        pytest.skip(f"real data not found in {folder}; set AQR_SHARED to the folder that holds data/")
    return folder


@pytest.fixture(scope="session")
def real_frame(shared_dir: Path) -> Path:
    """Root of a v1.0-mini data set that holds one real keyframe of scene-0061."""
    return shared_dir / "data" / "nuscenes-one"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a tiny synthetic v1.0-mini data set with one training and one validation scene."""
    from aqr.synth import write_world

    out = tmp_path_factory.mktemp("world") / "world"
    write_world(out, scenes=2, seed=3, preset="tiny", workers=1)
    return out
