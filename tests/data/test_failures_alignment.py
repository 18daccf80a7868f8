"""Sensors that disagree, against cameras taken apart and the tables' own links."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aqr.data.failures.alignment import Keyframes, misalign
from aqr.data.failures.catalogue import Failure
from aqr.data.failures.harm import Corruption
from aqr.data.index import open_index


def cameras(count: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Intrinsics, rotations, centres and projections of cameras around the LiDAR."""
    random = np.random.default_rng(0)
    intrinsic = np.array([[800.0, 0, 400], [0, 800, 160], [0, 0, 1]])
    rotation = Rotation.random(count, random_state=1).as_matrix()
    centre = random.uniform(-1, 1, (count, 3))
    lidar2img = np.tile(np.eye(4), (count, 1, 1))
    lidar2img[:, :3, :3] = intrinsic @ rotation
    lidar2img[:, :3, 3] = -(intrinsic @ rotation @ centre[..., None])[..., 0]
    return intrinsic, rotation, centre, lidar2img


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_every_camera_turns_by_the_angle_and_moves_by_the_shift(severity: int) -> None:
    intrinsic, rotation, centre, lidar2img = cameras()
    before = lidar2img.copy()
    moved = Corruption(Failure("spatial_misalignment", severity)).of("sample").projections(lidar2img)
    found = np.linalg.inv(intrinsic) @ moved[:, :3, :3]
    turn = Rotation.from_matrix(np.swapaxes(rotation, 1, 2) @ found).magnitude()
    np.testing.assert_allclose(np.degrees(turn), severity, atol=1e-6)
    place = -np.linalg.solve(moved[:, :3, :3], moved[:, :3, 3:])[..., 0]
    np.testing.assert_allclose(np.linalg.norm(place - centre, axis=1), 0.04 * severity, atol=1e-9)
    assert len(np.unique(np.round(place - centre, 6), axis=0)) == 6, "each in a direction of its own"
    np.testing.assert_array_equal(moved[:, 3], lidar2img[:, 3])
    np.testing.assert_array_equal(lidar2img, before)


def test_without_cameras_there_is_nothing_to_misalign() -> None:
    assert misalign(np.empty((0, 4, 4)), 3.0, np.random.default_rng(0)).shape == (0, 4, 4)


def test_earlier_keyframes_are_those_the_tables_link(world: Path) -> None:
    index = open_index(world, "v1.0-mini")
    records = {r["token"]: r for r in json.loads((world / "v1.0-mini" / "sample.json").read_text())}
    row_of = {index.token(row): row for row in range(len(index))}
    keyframes = Keyframes(index)
    for token, row in row_of.items():
        expected = token
        for count in range(4):
            assert keyframes.earlier(row, count) == row_of[expected]
            expected = records[expected]["prev"] or expected
    rows = np.arange(len(index))
    scenes = len({record["scene_token"] for record in records.values()})
    assert [keyframes.lacking(rows, count) for count in (0, 1, 2)] == [0, scenes, 2 * scenes]
