"""Pictures of one sample."""

from __future__ import annotations

from pathlib import Path

from aqr.view.adapt import scene_from_dataset
from aqr.view.bev import draw_bev
from aqr.view.cameras import draw_cameras
from aqr.view.scene import DEFAULT_RANGE, Scene


def draw_sample(scene: Scene, folder: str | Path, stem: str, min_score: float = 0.25) -> list[Path]:
    """Draw all that there is to see of a sample.

    Args:
        scene: what to draw.
        folder: where the pictures go; made as needed.
        stem: start of their names.
        min_score: predictions that score less are left out.

    Returns:
        `<stem>-bev.png` and, where there are cameras, `<stem>-cameras.png`.

    Raises:
        InputError: where a file cannot be written.
    """
    paths = [draw_bev(scene, Path(folder) / f"{stem}-bev.png", min_score)]
    if scene.images:
        paths.append(draw_cameras(scene, Path(folder) / f"{stem}-cameras.png", min_score))
    return paths


def view_sample(
    root: str | Path,
    version: str,
    folder: str | Path,
    sample: str | int = 0,
    *,
    split: str | None = None,
    sweeps: int = 0,
    pc_range: tuple[float, float, float, float, float, float] = DEFAULT_RANGE,
) -> list[Path]:
    """Draw a sample of a data set with its ground truth; see `aqr.view.adapt.scene_from_dataset`.

    Returns:
        The pictures, named after the sample token.

    Raises:
        InputError: where the data set cannot be read, has no such sample, or a picture cannot be written.
    """
    scene = scene_from_dataset(root, version, sample, split=split, sweeps=sweeps, pc_range=pc_range)
    return draw_sample(scene, folder, scene.title.split()[-1])
