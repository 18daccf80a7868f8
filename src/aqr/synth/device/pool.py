"""Scenes on a device, stacked, and their solids at any moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aqr.geometry import BOX_EDGES
from aqr.synth.camera import GRAIN
from aqr.synth.ground import GROUND_CELL
from aqr.synth.lidar import BEAMS, COLUMN_RAYS, COLUMNS, LENGTHS, RAYS, ROOF, ROW_RAYS, TANGENTS
from aqr.synth.rig import LIDAR_TO_EGO, Camera
from aqr.synth.shading import GRAINS, HASH
from aqr.synth.shadows import ShadowPainter
from aqr.synth.solids import MAX_PLANES, Solids
from aqr.synth.stage import Stage
from aqr.synth.tracks import STEP, Track
from aqr.synth.weather import Weather

Floats = npt.NDArray[np.floating]

LEVELS: Final = 4
"""Resolutions of the painted ground."""

_TABLES: Final[dict[str, npt.NDArray[Any]]] = {
    "beams": np.tile(np.arange(BEAMS, dtype=np.float32), COLUMNS),
    "column_rays": COLUMN_RAYS,
    "edges": np.array(BOX_EDGES),
    "grain": GRAIN,
    "ground_levels": np.array(
        [
            [1 / (GROUND_CELL * 2**level) for level in range(LEVELS)],
            [per_metre for per_metre, _ in GRAINS] + [0.0],
            [contrast for _, contrast in GRAINS] + [0.0],
        ],
        dtype=np.float32,
    ),
    "hash": HASH,
    "lengths": LENGTHS,
    "rays": RAYS,
    "row_rays": ROW_RAYS,
    "tangents": TANGENTS,
}


@lru_cache(maxsize=64)
def constant(name: str, device: torch.device) -> Tensor:
    """A table of the NumPy renderer on a device."""
    return torch.from_numpy(_TABLES[name]).to(device)


def turned(vectors: Tensor, rotation: Tensor) -> Tensor:
    """Vectors [..., 3] through matrices [..., 3, 3], dimension by dimension.

    A matrix product would depend on how large the batch is and on whether training allows TF32.
    """
    first, second, third = vectors.unbind(-1)
    return (
        first[..., None] * rotation[..., 0] + second[..., None] * rotation[..., 1] + third[..., None] * rotation[..., 2]
    )


class Shot(NamedTuple):
    """A moment of a scene.

    Attributes:
        scene: place of the scene in the pool.
        time_us: microseconds from the scene's start.
    """

    scene: int
    time_us: int


class Tracks:
    """Tracks that start together, interpolated all at once, as `aqr.synth.tracks.Track.at` does one by one."""

    def __init__(self, tracks: Sequence[Track]) -> None:
        self.start = tracks[0].start
        self.samples = np.stack([track.samples for track in tracks])

    def at(self, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """[T, N, 4] x, y, z, yaw at times [T]."""
        last = self.samples.shape[1]
        position = np.clip((seconds - self.start) / STEP, 0.0, last - 1.0)
        low = np.minimum(position.astype(np.int64), last - 2)
        share = (position - low)[:, None, None]
        samples = self.samples.transpose(1, 0, 2)
        return np.asarray((1 - share) * samples[low] + share * samples[low + 1])


@dataclass(frozen=True)
class Cast:
    """What of a scene stays on the host.

    Attributes:
        ego: track of the ego vehicle.
        actors: tracks of all actors.
        actor_count: number of them.
        weather: light and weather.
        lamp_y: distance of the street lamps from the middle of the street, metres.
        rig: the six cameras.
        origin: street coordinates of the corner of the painted ground.
    """

    ego: Tracks
    actors: Tracks
    actor_count: int
    weather: Weather
    lamp_y: float
    rig: tuple[Camera, ...]
    origin: tuple[float, float]


@dataclass(frozen=True)
class Moments:
    """The solids of B shots, street frames.

    Attributes:
        shots: B.
        scene: [B] places in the pool.
        poses: [B, N, 4] of the actors, on the host.
        ego: [B, 4] x, y, z, yaw of the ego vehicle, on the host.
        frames: [B, K, 4] float64 x, y, z (m), yaw of the frame that textures are drawn in.
        normals: [B, K, F, 3] float64.
        offsets: [B, K, F] float64.
        corners: [B, K, 8, 3] float64.
    """

    shots: tuple[Shot, ...]
    scene: Tensor
    poses: npt.NDArray[np.float64]
    ego: npt.NDArray[np.float64]
    frames: Tensor
    normals: Tensor
    offsets: Tensor
    corners: Tensor

    def __len__(self) -> int:
        return len(self.shots)


class Pool:
    """S scenes on one device, padded to the same number K of solids; the last solid is the vehicle's own roof.

    A scene takes about 40 MB, most of it for its painted ground.

    Attributes:
        casts: S, what stays on the host.
        planes: [S, K] int32 number of half-spaces, 0 in padding.
        owners: [S, K] int64 index of the actor, -1 for the scenery, the roof and padding.
        texture: [S, K] int32.
        colour: [3, S · K] float32.
        reflectivity: [S, K] float32.
        ground: [cells] int32, packed red, green, blue (8 bits each) of all levels of all scenes.
        ground_start: [S, LEVELS] int64 first cell, and ground_size: [S, LEVELS, 2] int64 rows and columns of a level.
        ground_origin: [S, 2] float64.
        shadows: [cells] uint8, sun that the scenery lets through, of all scenes.
        feet: [cells] uint8, 255 where look-alikes keep out the sky, laid out like `shadows`.
        shadow_start: [S] int64, and shadow_size: [S, 2] int64.
    """

    def __init__(self, stages: Sequence[Stage], rigs: Sequence[tuple[Camera, ...]], device: torch.device | str) -> None:
        """Stack scenes; each has the rig of the same place."""
        self.device = torch.device(device)
        self.casts = [_cast_of(stage, rig) for stage, rig in zip(stages, rigs, strict=True)]
        solids = [_solids_of(stage) for stage in stages]
        self.most_actors = max(cast.actor_count for cast in self.casts)
        most = -(-(max(len(own) for own, _ in solids) + 1) // 16) * 16
        padded = [_padded(own, owners, most, self.most_actors) for own, owners in solids]
        self.owners = self._stack([owners for _, owners, _ in padded])
        self._frames = self._stack([frame for _, _, frame in padded])
        self.planes = self._stack([own.planes.astype(np.int32) for own, _, _ in padded])
        self.texture = self._stack([own.texture.astype(np.int32) for own, _, _ in padded])
        self.reflectivity = self._stack([own.reflectivity.astype(np.float32) for own, _, _ in padded])
        colour = self._stack([own.colour.astype(np.float32) for own, _, _ in padded])
        self.colour = colour.reshape(-1, 3).T.contiguous()
        self._normals = self._stack([own.normals for own, _, _ in padded])
        self._offsets = self._stack([own.offsets for own, _, _ in padded])
        self._corners = self._stack([own.corners for own, _, _ in padded])
        self._paint(stages)

    @property
    def solids(self) -> int:
        """K."""
        return self.planes.shape[1]

    def egos(self, scenes: Sequence[int], seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """[V, 4] x, y, z, yaw of the ego vehicles of V scenes at times [V]."""
        found, places = np.empty((len(scenes), 4)), np.array(scenes)
        for scene in set(scenes):
            own = places == scene
            found[own] = self.casts[scene].ego.at(seconds[own])[:, 0]
        return found

    def _stack(self, arrays: Sequence[npt.NDArray[np.generic]]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self.device)

    def _paint(self, stages: Sequence[Stage]) -> None:
        levels = [level for stage in stages for level in stage.street.ground.levels]
        rooms = np.array([level.shape[0] * level.shape[1] for level in levels])
        self.ground = torch.empty(int(rooms.sum()), dtype=torch.int32, device=self.device)
        starts = np.cumsum(rooms) - rooms
        for start, level in zip(starts.tolist(), levels, strict=True):
            own = torch.tensor(level).to(self.device).reshape(-1, 3).int()
            self.ground[start : start + len(own)] = own[:, 0] | (own[:, 1] << 8) | (own[:, 2] << 16)
        self.ground_start = torch.from_numpy(starts.reshape(len(stages), LEVELS)).to(self.device)
        self.ground_size = self._stack([np.array(level.shape[:2]) for level in levels]).reshape(-1, LEVELS, 2)
        self.ground_origin = self._stack([np.array(stage.street.ground.origin) for stage in stages])
        painters = [ShadowPainter(stage) for stage in stages]
        sizes = np.array([painter.scenery.size[::-1] for painter in painters])
        rooms = sizes.prod(axis=1)
        self.shadows, self.feet = (
            torch.from_numpy(np.concatenate([np.asarray(image).ravel() for image in images])).to(self.device)
            for images in ([painter.scenery for painter in painters], [painter.feet for painter in painters])
        )
        self.shadow_start = torch.from_numpy(np.cumsum(rooms) - rooms).to(self.device)
        self.shadow_size = torch.from_numpy(sizes).to(self.device)

    def moments(self, shots: Sequence[Shot]) -> Moments:
        """All solids at B moments."""
        poses = np.zeros((len(shots), self.most_actors, 4))
        ego = self.egos([shot.scene for shot in shots], np.array([shot.time_us for shot in shots]) * 1e-6)
        for b, shot in enumerate(shots):
            cast, seconds = self.casts[shot.scene], np.array([shot.time_us * 1e-6])
            poses[b, : cast.actor_count] = cast.actors.at(seconds)[0]
        table = np.zeros((len(shots), self.most_actors + 2, 4))
        table[:, : self.most_actors] = poses
        table[:, -1] = lidar_poses(ego)
        scene = torch.tensor([shot.scene for shot in shots]).to(self.device, non_blocking=True)
        placed = torch.from_numpy(table).to(self.device, non_blocking=True)
        frame = self._frames[scene]
        frames = placed.gather(1, frame[..., None].expand(-1, -1, 4))
        cos, sin = torch.cos(frames[..., 3]), torch.sin(frames[..., 3])
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).reshape(*cos.shape, 3, 3)
        normals = turned(self._normals[scene], turn[:, :, None])
        shift = frames[..., :3]
        return Moments(
            shots=tuple(shots),
            scene=scene,
            poses=poses,
            ego=ego,
            frames=frames,
            normals=normals,
            offsets=self._offsets[scene] + dot(normals, shift[:, :, None]),
            corners=turned(self._corners[scene], turn[:, :, None]) + shift[..., None, :],
        )


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products of vectors [..., 3]."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def lidar_poses(ego: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[B, 4] x, y, z, yaw of the LiDAR on vehicles at [B, 4]."""
    cos, sin = np.cos(ego[:, 3]), np.sin(ego[:, 3])
    x, y, z = LIDAR_TO_EGO.translation
    return np.stack(
        [ego[:, 0] + cos * x - sin * y, ego[:, 1] + sin * x + cos * y, ego[:, 2] + z, ego[:, 3] + LIDAR_TO_EGO.yaw], -1
    )


def turns(yaw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[B, 3, 3] rotations about z."""
    cos, sin, zero, one = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw), np.ones_like(yaw)
    return np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).reshape(-1, 3, 3)


def _cast_of(stage: Stage, rig: tuple[Camera, ...]) -> Cast:
    actors = stage.traffic.actors
    return Cast(
        ego=Tracks([stage.traffic.ego]),
        actors=Tracks([actor.track for actor in actors]),
        actor_count=len(actors),
        weather=stage.weather,
        lamp_y=stage.street.layout.half - 1.2,
        rig=rig,
        origin=stage.street.ground.origin,
    )


def _solids_of(stage: Stage) -> tuple[Solids, npt.NDArray[np.int64]]:
    """Scenery in the street frame, then every actor in its own, and whose they are."""
    actors = stage.traffic.actors
    scenery = stage.scenery
    owners = np.repeat(np.arange(len(actors)), [len(actor.model.solids) for actor in actors])
    return (
        Solids.stack([scenery, *(actor.model.solids for actor in actors)]),
        np.concatenate([np.full(len(scenery), -1), owners]),
    )


def _padded(
    solids: Solids, owners: npt.NDArray[np.int64], most: int, actors: int
) -> tuple[Solids, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Solids padded to `most` with the roof at the end, whose they are, and which pose each goes with."""
    rest = most - 1 - len(solids)
    nothing = Solids(
        np.zeros((rest, MAX_PLANES, 3)),
        np.ones((rest, MAX_PLANES)),
        np.zeros(rest, dtype=np.int64),
        np.zeros((rest, 8, 3)),
        np.zeros((rest, 3)),
        np.zeros(rest, dtype=np.int64),
        np.zeros(rest),
    )
    own = np.concatenate([owners, np.full(rest + 1, -1)])
    frame = np.where(own < 0, actors, own)
    frame[-1] = actors + 1
    return Solids.stack([solids, nothing, ROOF]), own, frame
