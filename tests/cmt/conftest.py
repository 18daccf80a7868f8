"""The golden data of the original CMT head, and a detector with its weights."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

Arrays = Mapping[str, np.ndarray]


class Golden:
    """The files of shared/golden/cmt.

    Attributes:
        weights: the checkpoint, by CMT's names.
        inputs: see the README beside them.
        outputs: likewise.
        decoded: likewise.
    """

    def __init__(self, folder: Path) -> None:
        self.weights = {name: torch.from_numpy(a) for name, a in np.load(folder / "state_dict.npz").items()}
        self.inputs: Arrays = dict(np.load(folder / "inputs.npz"))
        self.outputs: Arrays = dict(np.load(folder / "outputs.npz"))
        self.decoded: Arrays = dict(np.load(folder / "decoded.npz"))


@pytest.fixture(scope="session")
def golden(shared_dir: Path) -> Golden:
    folder = shared_dir / "golden" / "cmt"
    if not folder.is_dir():
        pytest.skip(f"the golden data of CMT's head is not in {folder}; it is what these tests compare with")
    return Golden(folder)
