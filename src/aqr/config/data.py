"""Settings of the data: where samples come from, and what training makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from aqr.config.section import Count, Fraction, NonNegative, Positive, Section
from aqr.data.failures.catalogue import KIND_OF


class ImageAugmentation(Section):
    """Sizes relative to the source image; used in training only, apart from `size`.

    At inference the image is resized to cover `size` and cropped at the top (sky), centred left to right.
    """

    size: tuple[Count, Count] = (320, 800)
    """Height and width that the network sees, multiples of 32."""
    resize: tuple[Positive, Positive] = (0.94, 1.25)
    """Range of the random scale, relative to the scale used at inference."""
    flip: bool = True

    @model_validator(mode="after")
    def _sizes(self) -> ImageAugmentation:
        if self.size[0] % 32 or self.size[1] % 32:
            raise ValueError(f"image size {list(self.size)} must be multiples of 32")
        if self.resize[0] > self.resize[1]:
            raise ValueError(f"resize range {list(self.resize)} runs backwards")
        return self


class BevAugmentation(Section):
    """Global augmentation of points and boxes; `lidar2img` follows."""

    rotation: NonNegative = 0.785
    """Largest angle, radians, drawn uniformly from [-rotation, rotation]."""
    scale: tuple[Positive, Positive] = (0.9, 1.1)
    translation: NonNegative = 0.5
    """Standard deviation per axis, metres."""
    flip_x: bool = True
    flip_y: bool = True

    @model_validator(mode="after")
    def _scale(self) -> BevAugmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale range {list(self.scale)} runs backwards")
        return self


class FailureShare(Section):
    """How often training shows one failure."""

    name: str
    """One of `aqr.data.failures.catalogue.KINDS`."""
    probability: Fraction
    """Share of the samples."""
    severity: tuple[Annotated[int, Field(ge=1, le=3)], Annotated[int, Field(ge=1, le=3)]] = (1, 3)
    """Lowest and highest, drawn uniformly; total loss (`lidar_drop`) is 3."""

    @model_validator(mode="after")
    def _known(self) -> FailureShare:
        if self.name not in KIND_OF:
            raise ValueError(f"there is no failure {self.name!r}; known: {', '.join(KIND_OF)}")
        low, high = self.severity
        severities = KIND_OF[self.name].severities
        if not any(low <= severity <= high for severity in severities):
            raise ValueError(f"{self.name} has no severity from {low} to {high}; it has {list(severities)}")
        return self


class Failures(Section):
    """What fails in training, off by default. A sample fails in one way at most: the probabilities add up."""

    lidar_dropout: Fraction = 0.0
    """Share of the samples shown without a LiDAR point."""
    camera_dropout: Fraction = 0.0
    """Share of the samples shown with black images only."""
    augmentation: tuple[FailureShare, ...] = ()

    @model_validator(mode="after")
    def _shares(self) -> Failures:
        total = self.lidar_dropout + self.camera_dropout + sum(entry.probability for entry in self.augmentation)
        if total > 1.0 + 1e-9:
            raise ValueError(f"the probabilities add up to {total:g}, but a sample fails in one way at most")
        return self


class SynthWorld(Section):
    """A world that is rendered while it is learned from, where `data.kind` is synth: the one that `aqr synth` writes
    with the same settings and `data.version`."""

    preset: Literal["tiny", "small", "full"] = "small"
    """Length of scenes, spacing of LiDAR sweeps, and size of the images as they would be on disk. Pictures are taken at
    the size and zoom that the network sees."""
    scenes: Count = 100
    """About one in five is for validation."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the world, whatever the run's."""
    weather: tuple[Literal["Clear day", "Cloudy day", "Day, rain", "Night", "Night, after rain", "Day, fog"], ...] = ()
    """Kinds of weather that occur; all if empty."""


class Data(Section):
    kind: Literal["nuscenes", "synth"] = "nuscenes"
    """Samples from the nuScenes-format folder `root`, or rendered as `synth` says, on the GPU where there is one."""
    synth: SynthWorld = SynthWorld()
    root: Path = Path("data/nuscenes")
    version: str = "v1.0-trainval"
    train_split: str = "train"
    val_split: str = "val"
    sweeps: Annotated[int, Field(ge=0, le=10)] = 10
    """Number of earlier LiDAR sweeps added to the keyframe; fewer are used where fewer exist."""
    image: ImageAugmentation = ImageAugmentation()
    bev: BevAugmentation = BevAugmentation()
    augment: bool = True
    failures: Failures = Failures()
    cbgs: bool = True
    """Class-balanced grouping and sampling (arXiv 1908.09492) of training samples."""
    batch_size: Count = 4
    """Per GPU."""
    workers: Annotated[int, Field(ge=0)] = 4
