import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aqr.data.index import open_index
from aqr.data.points import load_points, read_scan
from aqr.errors import InputError
from aqr.taxonomy import LIDAR


@pytest.mark.parametrize("sweeps", [0, 4, 10])
def test_points_are_the_devkits(world: Path, devkit: Any, sweeps: int) -> None:
    from nuscenes.utils.data_classes import LidarPointCloud

    index = open_index(world, "v1.0-mini")
    counts = set()
    for row in range(len(index)):
        cloud, lags = LidarPointCloud.from_file_multisweep(
            devkit, devkit.get("sample", index.token(row)), LIDAR, LIDAR, nsweeps=sweeps + 1, min_distance=1.0
        )
        points = load_points(index, row, sweeps)
        assert points.dtype == np.float32
        assert points.shape == (cloud.points.shape[1], 5)
        np.testing.assert_allclose(points[:, :4], cloud.points.T, rtol=1e-5, atol=2e-4)
        np.testing.assert_allclose(points[:, 4], lags[0], atol=1e-6)
        assert points[:, 4].min() >= 0
        counts.add(len(points))
    assert len(counts) > 1


def test_real_keyframe(real_frame: Path, tmp_path: Path) -> None:
    index = open_index(real_frame, "v1.0-mini", tmp_path)
    raw = read_scan(real_frame / index.scans.path[0].decode())
    assert raw.shape == (34_688, 5)
    points = load_points(index, 0)
    outside = (abs(raw[:, 0]) >= 1) | (abs(raw[:, 1]) >= 1)
    np.testing.assert_array_equal(points[:, :4], raw[outside, :4])
    assert 0 < len(points) < len(raw)


def test_points_that_are_not_finite_are_dropped_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    points = np.arange(50, dtype=np.float32).reshape(10, 5)
    spoilt = points.copy()
    spoilt[3, 0] = np.nan
    spoilt[7, 3] = np.inf
    path = tmp_path / "a.bin"
    spoilt.tofile(path)
    with caplog.at_level(logging.WARNING, "aqr"):
        read = read_scan(path)
    np.testing.assert_array_equal(read, np.delete(points, [3, 7], axis=0))
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 2 of 10 points are not finite and were dropped"
    ]


@pytest.mark.parametrize("size", [0, 3, 19, 21, 1999])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(size))
    with pytest.raises(InputError, match=rf"a.bin: the LiDAR sweep is truncated \({size} bytes.*restore the file"):
        read_scan(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.bin: the LiDAR sweep cannot be read.*data.sweeps=0"):
        read_scan(tmp_path / "a.bin")
