"""A world that is not written but rendered when it is looked at.

Its tables alone are kept, a few megabytes in a cache folder, for which every keyframe is looked at once: points and
visible pixels of every object are part of the truth.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from aqr.errors import InputError
from aqr.files import cache_folder
from aqr.synth.device.pool import Pool
from aqr.synth.device.renderer import Renderer
from aqr.synth.device.sensors import DeviceSensors
from aqr.synth.presets import PRESETS, PresetName, scene_names
from aqr.synth.recorder import describe, draw
from aqr.synth.rig import Camera
from aqr.synth.sensors import SceneJob
from aqr.synth.stage import Stage
from aqr.synth.tables import Tables
from aqr.synth.world import RECIPE, write_tables

log = logging.getLogger(__name__)

Drawn = tuple[Stage, tuple[Camera, ...]]


@dataclass(frozen=True)
class LiveWorld:
    """The world that `aqr.synth.write_world` writes with the same settings, rendered on a device.

    Attributes:
        version: of the tables.
        jobs: its scenes.
        device: where it is rendered.
        workers: processes that draw scenes.
    """

    version: str
    jobs: tuple[SceneJob, ...]
    device: torch.device
    workers: int

    @classmethod
    def of(
        cls,
        *,
        scenes: int,
        seed: int,
        preset: PresetName,
        version: str,
        weather: Sequence[str] = (),
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> LiveWorld:
        """A world by its settings; see `aqr.synth.write_world`.

        Raises:
            InputError: where `version` has no names for so many scenes.
        """
        version, names = scene_names(scenes, version)
        jobs = tuple(SceneJob(name, seed, PRESETS[preset], tuple(weather)) for name in names)
        return cls(version, jobs, torch.device(device), workers)

    def tables(self, cache: Path | None = None) -> Path:
        """Root of the world's tables, made where they are missing.

        Args:
            cache: folder to keep them in, by default `aqr/synth` in the user's cache folder.

        Raises:
            InputError: where they cannot be written.
        """
        settings = [RECIPE, self.version, self.device.type, [asdict(job) for job in self.jobs]]
        key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
        root = (cache_folder() / "synth" if cache is None else cache) / key
        if (root / self.version).is_dir():
            return root
        log.info("looking at every keyframe of %d synthetic scenes once", len(self.jobs))
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix=".") as folder:
                partial = Path(folder) / self.version
                write_tables(list(self._describe()), partial)
                try:
                    partial.rename(root / self.version)
                except OSError:
                    if not (root / self.version).is_dir():  # not another process's work
                        raise
        except OSError as error:
            raise InputError(
                f"{error.filename or root}: cannot be written ({error.strerror}); set XDG_CACHE_HOME to another folder"
            ) from None
        return root

    def _describe(self) -> Iterator[Tables]:
        for job, (stage, rig) in zip(self.jobs, self._drawn(self.jobs), strict=True):
            yield describe(job, stage, rig, DeviceSensors(job, stage, rig, self.device, coloured=False))

    def renderer(self, jobs: Sequence[SceneJob]) -> Renderer:
        """A renderer of some scenes, in this order."""
        stages, rigs = zip(*self._drawn(jobs), strict=True)
        return Renderer(Pool(stages, rigs, self.device), threads=min(8, os.cpu_count() or 1))

    def _drawn(self, jobs: Sequence[SceneJob]) -> Iterator[Drawn]:
        workers = min(self.workers, len(jobs)) if len(jobs) > 1 else 0
        yield from DataLoader(_Scenes(jobs), batch_size=None, num_workers=workers, collate_fn=_as_it_is)


class _Scenes(Dataset[Drawn]):
    def __init__(self, jobs: Sequence[SceneJob]) -> None:
        self.jobs = jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, number: int) -> Drawn:
        return draw(self.jobs[number])


def _as_it_is(drawn: Any) -> Any:
    return drawn
