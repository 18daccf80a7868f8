from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aqr.config import Data, ImageAugmentation, Sensors
from aqr.data.augment import draw_bev
from aqr.data.dataset import NuScenesDataset
from aqr.data.index import open_index
from aqr.data.points import read_scan
from aqr.data.samples import collate, frame_of, lidar_boxes, projection
from aqr.data.sampling import Draw
from aqr.errors import InputError
from aqr.geometry import points_in_boxes, project, wrap_angle
from aqr.taxonomy import CAMERAS, CLASS_OF_CATEGORY, CLASSES, LIDAR

RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
EVERYWHERE = (-1e4, -1e4, -1e4, 1e4, 1e4, 1e4)
TWO = Sensors(cameras=("CAM_BACK", "CAM_FRONT"))
SMALL = ImageAugmentation(size=(32, 64))


def dataset(
    root: Path, training: bool = False, sensors: Sensors = TWO, pc_range: Any = EVERYWHERE, **data: Any
) -> NuScenesDataset:
    settings = Data(**{"root": root, "version": "v1.0-mini", "image": SMALL, **data})
    return NuScenesDataset(settings, sensors, "mini_train", training=training, pc_range=pc_range)


def test_boxes_are_the_devkits(world: Path, devkit: Any) -> None:
    """Centre, heading and velocity through the devkit's own chain of translate and rotate."""
    from pyquaternion import Quaternion

    index = open_index(world, "v1.0-mini")
    compared = 0
    for row in range(len(index)):
        truth = index.ground_truth(np.array([row]))
        ours = lidar_boxes(truth, frame_of(index, row).lidar_to_global)
        scan = devkit.get("sample_data", devkit.get("sample", index.token(row))["data"][LIDAR])
        expected = []
        for box in devkit.get_boxes(scan["token"]):
            name = CLASS_OF_CATEGORY.get(box.name)
            if name is None:
                continue
            box.velocity = np.array([*devkit.box_velocity(box.token)[:2], 0.0])
            for table, field in (("ego_pose", "ego_pose_token"), ("calibrated_sensor", "calibrated_sensor_token")):
                pose = devkit.get(table, scan[field])
                box.translate(-np.array(pose["translation"]))
                box.rotate(Quaternion(pose["rotation"]).inverse)
            heading = box.orientation.rotation_matrix[:, 0]
            width, length, height = box.wlh
            yaw = np.arctan2(heading[1], heading[0])
            expected.append([*box.center, length, width, height, yaw, *box.velocity[:2], CLASSES.index(name)])
        expected = np.array(expected)
        order = np.lexsort(expected[:, :1].T), np.lexsort(ours[:, :1].T)
        expected, got = expected[order[0]], np.c_[ours, truth.label][order[1]]
        np.testing.assert_allclose(wrap_angle(got[:, 6] - expected[:, 6]), 0, atol=1e-5)
        np.testing.assert_allclose(np.delete(got, 6, 1), np.delete(expected, 6, 1), rtol=1e-5, atol=1e-4)
        compared += len(got)
    assert compared > 50


def test_projection_is_the_devkits(world: Path, devkit: Any) -> None:
    from nuscenes.utils.geometry_utils import view_points
    from pyquaternion import Quaternion

    index = open_index(world, "v1.0-mini")
    cloud = np.random.default_rng(0).normal(0, 300, (50, 3))
    compared = 0
    for row in range(0, len(index), 4):
        data = devkit.get("sample", index.token(row))["data"]
        for camera in TWO.cameras:
            points = cloud.T.copy()
            scan, image = (devkit.get("sample_data", data[name]) for name in (LIDAR, camera))
            chain = [
                ("calibrated_sensor", scan, False),
                ("ego_pose", scan, False),
                ("ego_pose", image, True),
                ("calibrated_sensor", image, True),
            ]
            for table, record, inverse in chain:
                pose = devkit.get(table, record[f"{table}_token"])
                rotation = Quaternion(pose["rotation"]).rotation_matrix
                shift = np.array(pose["translation"])[:, None]
                points = rotation.T @ (points - shift) if inverse else rotation @ points + shift
            intrinsic = np.array(devkit.get("calibrated_sensor", image["calibrated_sensor_token"])["camera_intrinsic"])
            pixels = view_points(points, intrinsic, normalize=True)
            found = index.image_rows(np.array([row]), (camera,))[0, 0]
            ours, depth = project(cloud, projection(index, found, frame_of(index, row).lidar_to_global))
            front = points[2] > 0.1
            compared += front.sum()
            np.testing.assert_allclose(depth, points[2], atol=1e-8)
            np.testing.assert_allclose(ours[front], pixels[:2].T[front], rtol=1e-8, atol=1e-6)
    assert compared > 50


def test_points_in_boxes_of_the_real_frame(real_frame: Path, tmp_path: Path) -> None:
    """Counts differ from num_lidar_pts by 29 in all, as an exact count does, with every augmentation."""
    index = open_index(real_frame, "v1.0-mini", tmp_path)
    data = Data(root=real_frame, version="v1.0-mini")
    whole = NuScenesDataset(data, Sensors(cameras=()), "mini_train", training=False, pc_range=RANGE, index=index)[0]
    truth = index.ground_truth(np.array([0]))
    annotated = index.annotations.num_lidar_pts[truth.annotation]
    counted = points_in_boxes(whole.points, whole.boxes).sum(axis=1)
    assert abs(counted - annotated).sum() == 29
    raw = read_scan(real_frame / index.scans.path[0].decode())
    np.testing.assert_array_equal(points_in_boxes(raw, whole.boxes).sum(axis=1), counted)
    for seed in range(20):
        moved = whole.moved(draw_bev(data.bev, np.random.default_rng(seed)))
        assert abs(points_in_boxes(moved.points, moved.boxes).sum(axis=1) - annotated).sum() == 29


def test_projected_points_have_the_colour_of_the_real_images_under_every_augmentation(
    real_frame: Path, tmp_path: Path
) -> None:
    """A LiDAR point shows the same colour in the augmented images as in the images on disk."""
    index = open_index(real_frame, "v1.0-mini", tmp_path)
    data = Data(root=real_frame, version="v1.0-mini")
    plain = NuScenesDataset(
        data.model_copy(update={"image": ImageAugmentation(size=(896, 1600))}),
        Sensors(),
        "mini_train",
        training=False,
        pc_range=RANGE,
        index=index,
    )[0]
    varied = NuScenesDataset(data, Sensors(), "mini_train", training=True, pc_range=RANGE, index=index)

    def colours(sample: Any, camera: int) -> tuple[np.ndarray, np.ndarray]:
        pixels, depth = project(sample.points[:, :3].astype(np.float64), sample.lidar2img[camera])
        height, width = sample.images.shape[-2:]
        column, row = np.floor(np.nan_to_num(pixels, posinf=-1, neginf=-1).clip(-1, 1e6)).astype(int).T
        seen = (depth > 1) & (column >= 3) & (row >= 3) & (column < width - 3) & (row < height - 3)
        # Means over 5 x 5 (full size: 9 x 9) pixels: resampling blurs, a misplaced window does not match.
        reach = 4 if width == 1600 else 2
        offsets = np.arange(-reach, reach + 1)
        r = (row[:, None, None] + offsets[:, None]).clip(0, height - 1)
        c = (column[:, None, None] + offsets).clip(0, width - 1)
        return sample.images[camera][:, r, c].mean(axis=(0, 2, 3)), seen

    for epoch in range(2):
        sample = varied[Draw(0, epoch, 0)]
        for camera in range(6):
            before, seen_before = colours(plain, camera)
            after, seen_after = colours(sample, camera)
            both = seen_before & seen_after & (after > 0)
            assert both.sum() > 500
            assert np.corrcoef(before[both], after[both])[0, 1] > 0.96


def test_undoing_restores_the_sample(world: Path) -> None:
    for row in range(3):
        plain = dataset(world)[row]
        sample = plain.moved(draw_bev(Data().bev, np.random.default_rng(row)))
        assert sample.frame.augmentation != plain.frame.augmentation
        back = sample.moved(np.linalg.inv(sample.frame.augmentation))
        np.testing.assert_allclose(back.points, plain.points, atol=1e-4)
        np.testing.assert_allclose(back.boxes, plain.boxes, atol=1e-3)
        np.testing.assert_allclose(back.lidar2img, plain.lidar2img, atol=1e-8)
        np.testing.assert_allclose(back.frame.augmentation, np.eye(4), atol=1e-12)


def test_the_frame_tells_what_augmentation_did(world: Path) -> None:
    plain, varied = dataset(world), dataset(world, training=True)
    for row in range(3):
        sample, original = varied[row], plain[row]
        matrix = np.array(sample.frame.augmentation)
        expected = original.points[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
        np.testing.assert_allclose(sample.points[:, :3], expected, atol=1e-3)
        np.testing.assert_array_equal(sample.frame.lidar_to_global.matrix, original.frame.lidar_to_global.matrix)
        np.testing.assert_array_equal(original.frame.augmentation, np.eye(4))


def test_training_keeps_boxes_with_points_and_centre_in_range(world: Path) -> None:
    pc_range = (-90.0, -90.0, -90.0, 90.0, 90.0, 90.0)
    index = open_index(world, "v1.0-mini")
    plain = dataset(world, training=True, augment=False, pc_range=pc_range)
    whole = dataset(world)
    varied = dataset(world, training=True, pc_range=pc_range)
    dropped = 0
    for place, row in enumerate(whole.rows):
        everything = whole[place]
        points = index.ground_truth(np.array([row])).num_pts
        keep = (points > 0) & (abs(everything.boxes[:, :3]) <= 90).all(axis=1)
        np.testing.assert_array_equal(plain[place].boxes, everything.boxes[keep])
        np.testing.assert_array_equal(plain[place].labels, everything.labels[keep])
        assert (abs(varied[place].boxes[:, :3]) <= 90).all()
        dropped += (~keep).sum()
        assert len(everything.boxes) == len(points)
    assert dropped > 0


def test_augmentation_depends_on_seed_epoch_sample_and_repeat(world: Path) -> None:
    data = dataset(world, training=True)

    def seen(draw: Draw) -> tuple[Any, ...]:
        return data[draw].frame.augmentation

    assert seen(Draw(0, 0, 0)) == seen(Draw(0, 0, 0))
    assert len({seen(draw) for draw in (Draw(0, 0, 0), Draw(1, 0, 0), Draw(0, 1, 0), Draw(0, 0, 1))}) == 4
    data.set_epoch(1)
    assert data[0].frame.augmentation == seen(Draw(0, 1, 0))
    other = NuScenesDataset(data.data, TWO, "mini_train", training=True, pc_range=EVERYWHERE, seed=1)
    assert other[Draw(0, 0, 0)].frame.augmentation != seen(Draw(0, 0, 0))


@pytest.mark.parametrize("cameras", [(), ("CAM_BACK",), ("CAM_BACK", "CAM_FRONT"), ("CAM_FRONT", "CAM_BACK")])
def test_any_list_of_cameras_in_its_own_order(world: Path, cameras: tuple[str, ...]) -> None:
    sample = dataset(world, sensors=Sensors(cameras=cameras))[1]
    assert sample.images.shape == (len(cameras), 3, 32, 64)
    assert sample.lidar2img.shape == (len(cameras), 4, 4)
    reference = dataset(world)[1]
    for place, camera in enumerate(cameras):
        np.testing.assert_array_equal(sample.images[place], reference.images[TWO.cameras.index(camera)])
        np.testing.assert_array_equal(sample.lidar2img[place], reference.lidar2img[TWO.cameras.index(camera)])


def test_without_lidar_no_scan_is_read(own_world: Path) -> None:
    for path in own_world.rglob("*.bin"):
        path.unlink()
    sample = dataset(own_world, sensors=Sensors(lidar=False, cameras=("CAM_BACK",)))[0]
    assert sample.points.shape == (0, 5)
    assert len(sample.boxes) > 0
    with pytest.raises(InputError, match=r"\.bin: the LiDAR sweep cannot be read"):
        dataset(own_world)[0]


def test_a_camera_that_the_data_lack_is_refused_before_the_first_sample(world: Path) -> None:
    with pytest.raises(InputError, match="there is no camera 'CAM_FRONT_RIGHT'"):
        dataset(world, sensors=Sensors(cameras=CAMERAS))


def test_images_without_a_stated_size_are_refused(own_world: Path, edit: Any) -> None:
    edit("sample_data", lambda records: [record.update(height=0) for record in records])
    with pytest.raises(InputError, match=r"sample_data.json: the record of samples/CAM_\w+/\S+ states no width and"):
        dataset(own_world)


def test_class_presence(world: Path) -> None:
    data = dataset(world)
    expected = np.zeros((len(data), 10), dtype=bool)
    filtered = dataset(world, training=True, augment=False)
    for place in range(len(data)):
        expected[place, filtered[place].labels] = True
    np.testing.assert_array_equal(data.class_presence(), expected)
    assert 0 < expected.sum() < expected.size


def test_collate_puts_samples_behind_one_another(world: Path) -> None:
    data = dataset(world)
    samples = [data[0], data[3]]
    batch = collate(samples)
    assert len(batch) == 2
    assert batch.point_counts == [len(sample.points) for sample in samples]
    assert batch.box_counts == [len(sample.boxes) for sample in samples]
    np.testing.assert_array_equal(batch.points[: batch.point_counts[0]].numpy(), samples[0].points)
    np.testing.assert_array_equal(batch.boxes[batch.box_counts[0] :].numpy(), samples[1].boxes)
    np.testing.assert_array_equal(batch.labels[batch.box_counts[0] :].numpy(), samples[1].labels)
    np.testing.assert_array_equal(batch.images[1].numpy(), samples[1].images)
    np.testing.assert_array_equal(batch.lidar2img[1].numpy(), samples[1].lidar2img.astype(np.float32))
    assert [frame.sample_token for frame in batch.frames] == [data.index.token(row) for row in data.rows[[0, 3]]]
    assert batch.points.dtype == batch.boxes.dtype == batch.lidar2img.dtype == torch.float32
    assert batch.labels.dtype == torch.int64
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous()
