"""The sensor failures that can be simulated: names, severities, strengths and where they come from.

Sources, by the names used below:

    nuScenes-R    Benchmarking the Robustness of LiDAR-Camera Fusion for 3D Object Detection, arXiv 2205.14951
    nuScenes-C    Benchmarking Robustness of 3D Object Detection to Common Corruptions, arXiv 2303.11040
    MultiCorrupt  A Multi-Modal Robustness Dataset and Benchmark of LiDAR-Camera Fusion, arXiv 2402.11677
    MoME          Resilient Sensor Fusion under Adverse Sensor Failures, arXiv 2503.19776
    ImageNet-C    Benchmarking Neural Network Robustness to Common Corruptions, arXiv 1903.12261
    Hahner        Fog Simulation on Real LiDAR Point Clouds, arXiv 2108.05249
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from aqr.errors import InputError

LIDAR: Final = "lidar"
CAMERA: Final = "camera"
EVERYTHING: Final = "all"


@dataclass(frozen=True)
class Kind:
    """One kind of failure.

    Attributes:
        name: as on the command line and in configs.
        needs: the sensors that a detector must use to be concerned.
        strengths: one per severity from 1; a single one belongs to severity 3, total loss.
        meaning: what the strength counts.
        source: where the failure was published.
    """

    name: str
    needs: tuple[str, ...]
    strengths: tuple[float, ...]
    meaning: str
    source: str

    @property
    def severities(self) -> tuple[int, ...]:
        return tuple(range(4 - len(self.strengths), 4))


KINDS: Final = (
    Kind("lidar_drop", (LIDAR,), (1.0,), "share of points lost", "MoME (LiDAR drop), nuScenes-R"),
    Kind("beams_reducing", (LIDAR,), (16, 8, 4), "beams left", "MultiCorrupt; 4 beams also MoME"),
    Kind("limited_fov", (LIDAR,), (90, 60, 35), "degrees seen to each side of straight ahead", "nuScenes-R, MoME (60)"),
    Kind("object_failure", (LIDAR,), (0.25, 0.5, 0.75), "chance of an object to lose its points", "nuScenes-R, MoME"),
    Kind("points_reducing", (LIDAR,), (0.7, 0.8, 0.9), "share of points lost", "MultiCorrupt"),
    Kind("lidar_fog", (LIDAR,), (0.02, 0.03, 0.06), "extinction, 1/m", "MultiCorrupt, nuScenes-C; model after Hahner"),
    Kind("lidar_stuck", (LIDAR,), (1, 2, 3), "keyframes by which the LiDAR is late", "nuScenes-R, nuScenes-C"),
    Kind("missing_camera", (CAMERA,), (1 / 6, 0.5, 1.0), "share of cameras lost", "MultiCorrupt, nuScenes-R, MoME"),
    Kind("occlusion", (CAMERA,), (0.15, 0.35, 0.6), "share of each image covered", "nuScenes-R, MoME"),
    Kind("dark", (CAMERA,), (0.6, 0.4, 0.3), "brightness of white", "MultiCorrupt"),
    Kind("brightness", (CAMERA,), (1, 2, 3), "stops of overexposure", "MultiCorrupt, nuScenes-C"),
    Kind("motion_blur", (CAMERA,), (0.01, 0.02, 0.03), "length, image widths", "MultiCorrupt, nuScenes-C"),
    Kind("jpeg", (CAMERA,), (25, 15, 7), "JPEG quality", "ImageNet-C"),
    Kind("camera_stuck", (CAMERA,), (1, 2, 3), "keyframes by which the cameras are late", "nuScenes-R, nuScenes-C"),
    Kind("spatial_misalignment", (LIDAR, CAMERA), (1, 2, 3), "degrees", "MultiCorrupt, nuScenes-C, nuScenes-R"),
)

KIND_OF: Final = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Failure:
    """A failure at one severity.

    Attributes:
        name: one of `KIND_OF`.
        severity: 1 (slight) to 3.
    """

    name: str
    severity: int

    def __post_init__(self) -> None:
        if self.name not in KIND_OF:
            raise InputError(f"there is no failure {self.name!r}; known: {', '.join(KIND_OF)}")
        if self.severity not in self.kind.severities:
            known = ", ".join(str(severity) for severity in self.kind.severities)
            raise InputError(f"failure {self.name} has no severity {self.severity}; it has {known}")

    @property
    def kind(self) -> Kind:
        return KIND_OF[self.name]

    @property
    def strength(self) -> float:
        return self.kind.strengths[self.kind.severities.index(self.severity)]

    def __str__(self) -> str:
        return f"{self.name}-{self.severity}"


def parse_failures(text: str, sensors: Collection[str] = (LIDAR, CAMERA)) -> list[Failure]:
    """The failures that a text like `lidar_fog`, `dark:2,lidar_drop` or `all` asks for, in its order, each once.

    Args:
        text: names, each with a severity or meaning all of its severities, separated by commas; or `all`.
        sensors: what the detector uses. `all` leaves out what does not concern it.

    Raises:
        InputError: for an unknown name or severity, and for a failure of a sensor that is not used.
    """
    if text == EVERYTHING:
        kinds = [kind for kind in KINDS if set(kind.needs) <= set(sensors)]
        return [Failure(kind.name, severity) for kind in kinds for severity in kind.severities]
    failures: dict[Failure, None] = {}
    for part in text.split(","):
        name, colon, level = part.strip().partition(":")
        if name not in KIND_OF:
            raise InputError(f"there is no failure {name!r}; known: {', '.join(KIND_OF)}, {EVERYTHING}")
        kind = KIND_OF[name]
        if colon and level not in {str(severity) for severity in kind.severities}:
            known = ", ".join(str(severity) for severity in kind.severities)
            raise InputError(f"failure {name} has no severity {level!r}; it has {known}")
        lacking = set(kind.needs) - set(sensors)
        if lacking:
            raise InputError(f"failure {name} concerns a sensor that this detector does not use: {min(lacking)}")
        severities = (int(level),) if colon else kind.severities
        failures |= dict.fromkeys(Failure(name, severity) for severity in severities)
    return list(failures)
