"""How large a world is, and what its scenes are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from aqr.data.splits import scenes_of
from aqr.errors import InputError

PresetName = Literal["tiny", "small", "full"]


@dataclass(frozen=True)
class Preset:
    """Size of each scene.

    Attributes:
        keyframes: samples per scene, 2 per second.
        image_size: (height, width), pixels.
        sweeps: LiDAR sweeps kept between two keyframes, evenly spaced; 9 is all of them (20 per second).
        scenes: number of scenes where the caller names none.
    """

    keyframes: int
    image_size: tuple[int, int]
    sweeps: int
    scenes: int


PRESETS: Final[dict[PresetName, Preset]] = {
    "tiny": Preset(10, (198, 352), 1, 10),
    "small": Preset(20, (396, 704), 4, 20),
    "full": Preset(40, (900, 1600), 9, 100),
}

SPLITS: Final = {"v1.0-mini": ("mini_train", "mini_val"), "v1.0-trainval": ("train", "val")}
"""Training and validation split of each version that can be written."""


def scene_names(scenes: int, version: str | None) -> tuple[str, list[str]]:
    """Official names for a number of scenes, so that the devkit's splits apply unchanged.

    Args:
        scenes: how many; about one in five goes to the validation split, at least one from two scenes on.
        version: `v1.0-mini` (at most 10 scenes) or `v1.0-trainval` (850); None takes the smaller one that fits.

    Returns:
        The version and the names, training scenes first.

    Raises:
        InputError: for another version or a number of scenes that it has no names for.
    """
    if version is None:
        version = "v1.0-mini" if scenes <= 10 else "v1.0-trainval"
    if version not in SPLITS:
        raise InputError(f"version {version!r} cannot be written; choose one of {', '.join(SPLITS)}")
    train, val = (sorted(scenes_of(split)) for split in SPLITS[version])
    most = len(train) + len(val)
    if not 1 <= scenes <= most:
        mend = "; write v1.0-trainval instead" if 10 < scenes <= 850 else ""
        raise InputError(f"{scenes} scenes do not fit {version}, which has names for 1 to {most}{mend}")
    share = max(1, round(scenes * len(val) / most)) if scenes > 1 else 0
    share = max(share, scenes - len(train))
    return version, train[: scenes - share] + val[:share]
