"""Pictures of one sample."""

from __future__ import annotations

from pathlib import Path

from aqr.view.bev import draw_bev
from aqr.view.cameras import draw_cameras
from aqr.view.scene import Scene


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
