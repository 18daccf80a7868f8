"""LiDAR points: the keyframe's and those of earlier sweeps, in the keyframe's LiDAR frame."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from aqr.data.index import MAX_SWEEPS, Index
from aqr.errors import InputError
from aqr.geometry import Pose, X, Y

log = logging.getLogger(__name__)

Points = npt.NDArray[np.float32]

FILE_FIELDS: Final = 5
"""x, y, z, intensity, ring index, float32."""
RING: Final = 4
FIELDS: Final = 5
"""x, y, z (m), intensity (0 … 255), time lag (s)."""
EGO_RADIUS: Final = 1.0
"""Half side (m) of the square around the sensor whose returns come from the ego vehicle's roof."""


def read_scan(path: Path) -> Points:
    """Points of one sweep as stored, without non-finite ones.

    Returns:
        [P, 5] x, y, z (m, LiDAR frame of the sweep), intensity, ring index.

    Raises:
        InputError: if the file is missing, empty or truncated.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: the LiDAR sweep cannot be read ({error.strerror}); restore the file, or set data.sweeps=0 to use "
            "keyframes alone"
        ) from None
    if not content or len(content) % (4 * FILE_FIELDS):
        raise InputError(
            f"{path}: the LiDAR sweep is truncated ({len(content)} bytes are not a whole number of points of "
            f"{4 * FILE_FIELDS} bytes); restore the file"
        )
    points = np.frombuffer(content, dtype="<f4").reshape(-1, FILE_FIELDS)
    if not np.isfinite(points).all():
        finite = np.isfinite(points).all(axis=1)
        log.warning("%s: %d of %d points are not finite and were dropped", path, (~finite).sum(), len(points))
        points = points[finite]
    return points


def load_points(
    index: Index,
    sample: int,
    sweeps: int = MAX_SWEEPS,
    change: Callable[[int, Points], Points] | None = None,
    read: Callable[[int], Points] | None = None,
) -> Points:
    """Points of a keyframe and of up to `sweeps` sweeps before it, as the ego motion displaced them.

    Every sweep goes from its own LiDAR frame over the ego vehicle and the map into the LiDAR frame of the keyframe.
    Returns from the ego vehicle itself are removed.

    Args:
        index: of the data set.
        sample: row of the sample.
        sweeps: number of earlier sweeps; fewer are used where fewer exist.
        change: makes of a sweep's number, counted from the keyframe, and its points as stored what is used instead.
        read: gives the points of a row of `Scans` as stored; by default those of its file.

    Returns:
        [P, 5] x, y, z (m), intensity, time lag (s, 0 for the keyframe); keyframe first, then latest sweep first.

    Raises:
        InputError: if a file is missing, empty or truncated.
    """
    key = int(index.samples.scan[sample])
    global_to_key = index.scan_to_global(key).inverse()
    clouds = []
    for number, scan in enumerate([key, *index.sweeps(sample, sweeps)]):
        stored = read_scan(index.root / index.scans.path[scan].decode()) if read is None else read(scan)
        stored = stored if change is None else change(number, stored)
        outside = np.maximum(abs(stored[:, X]), abs(stored[:, Y])) >= EGO_RADIUS
        kept = stored.take(np.flatnonzero(outside), axis=0)
        # The ring index makes room for a 1, so that one product rotates, shifts and writes the time lag.
        kept[:, RING] = 1.0
        lag = int(index.scans.timestamp[key]) - int(index.scans.timestamp[scan])
        motion = Pose.identity() if scan == key else global_to_key @ index.scan_to_global(scan)
        affine = np.zeros((FILE_FIELDS, FIELDS), dtype=np.float32)
        affine[:RING, :RING] = np.eye(RING)
        affine[:3, :3] = motion.rotation.T
        affine[RING] = [*motion.translation, 0.0, max(lag, 0) * 1e-6]
        clouds.append(multiplied(kept, affine))
    return np.concatenate(clouds)


def multiplied(points: Points, matrix: Points) -> Points:
    """Points [P, C] times a matrix [C, D].

    By torch: a loader keeps it to one thread per worker process, while NumPy's BLAS takes all cores in each of them.
    """
    if not len(points):  # a live world moves its points on the GPU, and its samples bring none
        return np.empty((0, matrix.shape[1]), dtype=np.float32)
    return np.asarray((torch.from_numpy(points) @ torch.from_numpy(matrix)).numpy())
