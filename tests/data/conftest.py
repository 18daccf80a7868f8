"""A small random world in nuScenes format: nothing in it is realistic, everything differs from everything else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from aqr.taxonomy import ATTRIBUTES, CLASS_OF_CATEGORY, LIDAR

Record = dict[str, Any]
CAMERAS = ("CAM_FRONT", "CAM_BACK")
IMAGE_SIZE = (96, 160)
SCENES = ("scene-0061", "scene-0103", "scene-0553")


def _pose(random: np.random.Generator, spread: float) -> Record:
    x, y, z, w = Rotation.random(random_state=random).as_quat().tolist()
    return {"translation": random.normal(0, spread, 3).tolist(), "rotation": [w, x, y, z]}


def write_world(root: Path, seed: int = 0, samples_per_scene: int = 5, sweeps_between: int = 3) -> Path:
    """Three scenes of mini_train and mini_val with tilted vehicles and sensors, gaps in time and in tracks."""
    random = np.random.default_rng(seed)
    names = [*CLASS_OF_CATEGORY, "static_object.bicycle_rack", "animal"]
    tables: dict[str, list[Record]] = {
        "log": [{"token": "log", "logfile": "", "vehicle": "", "date_captured": "", "location": ""}],
        "map": [{"token": "map", "category": "", "filename": "maps/none.png", "log_tokens": ["log"]}],
        "category": [{"token": f"category{n}", "name": name, "description": ""} for n, name in enumerate(names)],
        "attribute": [{"token": f"attribute{n}", "name": name, "description": ""} for n, name in enumerate(ATTRIBUTES)],
        "visibility": [
            {"token": str(n + 1), "level": level, "description": ""}
            for n, level in enumerate(("v0-40", "v40-60", "v60-80", "v80-100"))
        ],
        "sensor": [
            {"token": f"sensor-{name}", "channel": name, "modality": kind}
            for name, kind in ((LIDAR, "lidar"), *((c, "camera") for c in CAMERAS), ("RADAR_FRONT", "radar"))
        ],
    }
    for name in ("calibrated_sensor", "ego_pose", "instance", "sample", "sample_annotation", "sample_data", "scene"):
        tables[name] = []
    (root / "maps").mkdir(parents=True)
    Image.new("L", (8, 8)).save(root / "maps" / "none.png")

    def record(channel: str, sample: str, stamp: int, key: bool, prev: str, scene: int) -> str:
        folder = "samples" if key else "sweeps"
        ending = {"L": "pcd.bin", "C": "jpg", "R": "pcd"}[channel[0]]
        path = root / folder / channel / f"{scene}-{stamp}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        token = f"{channel}-{scene}-{stamp}"
        if channel == LIDAR:
            points = random.normal(0, 8, (60, 5)).astype(np.float32)
            points[:10, :2] = random.uniform(-1.3, 1.3, (10, 2))
            points.tofile(path)
        elif key and channel in CAMERAS:
            Image.fromarray(random.integers(0, 256, (*IMAGE_SIZE, 3), dtype=np.uint8)).save(path)
        tables["ego_pose"].append({"token": f"ego-{token}", "timestamp": stamp, **_pose(random, 100.0)})
        tables["sample_data"].append(
            {
                "token": token,
                "sample_token": sample,
                "ego_pose_token": f"ego-{token}",
                "calibrated_sensor_token": f"calibrated-{scene}-{channel}",
                "timestamp": stamp,
                "fileformat": ending,
                "is_key_frame": key,
                "height": IMAGE_SIZE[0] if channel in CAMERAS else 0,
                "width": IMAGE_SIZE[1] if channel in CAMERAS else 0,
                "filename": str(path.relative_to(root)),
                "prev": prev,
                "next": "",
            }
        )
        return token

    for scene, name in enumerate(SCENES):
        tables["scene"].append(
            {
                "token": f"scene{scene}",
                "log_token": "log",
                "nbr_samples": samples_per_scene,
                "first_sample_token": f"sample{scene}-0",
                "last_sample_token": f"sample{scene}-{samples_per_scene - 1}",
                "name": name,
                "description": "",
            }
        )
        for channel in (LIDAR, *CAMERAS, "RADAR_FRONT"):
            f = random.uniform(60, 120)
            intrinsic = [[f, 0.0, 78.3], [0.0, f, 47.1], [0.0, 0.0, 1.0]] if channel in CAMERAS else []
            tables["calibrated_sensor"].append(
                {
                    "token": f"calibrated-{scene}-{channel}",
                    "sensor_token": f"sensor-{channel}",
                    "camera_intrinsic": intrinsic,
                    **_pose(random, 1.0),
                }
            )
        stamps = (
            1_500_000_000_000_000 + scene * 10**9 + np.cumsum(random.choice([500_000, 1_700_000], samples_per_scene))
        )
        previous = ""
        tracks: dict[str, Record] = {}
        for place, stamp in enumerate(stamps.tolist()):
            sample = f"sample{scene}-{place}"
            tables["sample"].append(
                {
                    "token": sample,
                    "timestamp": stamp,
                    "prev": f"sample{scene}-{place - 1}" if place else "",
                    "next": f"sample{scene}-{place + 1}" if place + 1 < samples_per_scene else "",
                    "scene_token": f"scene{scene}",
                }
            )
            for back in range(sweeps_between, 0, -1) if place else ():
                previous = record(LIDAR, sample, stamp - back * 50_000, False, previous, scene)
            previous = record(LIDAR, sample, stamp + 1_000, True, previous, scene)
            for camera in (*CAMERAS, "RADAR_FRONT"):
                record(camera, sample, stamp - 20_000, True, "", scene)
                record(camera, sample, stamp - 10_000, False, "", scene)
            for number, category in enumerate(random.permutation(len(names))):
                if random.random() < 0.3:
                    continue
                instance = f"instance{scene}-{category}"
                token = f"annotation{scene}-{place}-{number}"
                before = tracks.get(instance)
                if before is None:
                    tables["instance"].append(
                        {
                            "token": instance,
                            "category_token": f"category{category}",
                            "nbr_annotations": 1,
                            "first_annotation_token": token,
                            "last_annotation_token": token,
                        }
                    )
                else:
                    before["next"] = token
                tracks[instance] = {
                    "token": token,
                    "sample_token": sample,
                    "instance_token": instance,
                    "visibility_token": random.choice(["", "1", "2", "3", "4"]).item(),
                    "attribute_tokens": [f"attribute{random.integers(8)}"] if random.random() < 0.7 else [],
                    "size": random.uniform(0.5, 10, 3).tolist(),
                    "prev": before["token"] if before else "",
                    "next": "",
                    "num_lidar_pts": int(random.integers(3)),
                    "num_radar_pts": int(random.integers(2)),
                    **_pose(random, 100.0),
                }
                tables["sample_annotation"].append(tracks[instance])
    random.shuffle(tables["sample_annotation"])
    folder = root / "v1.0-mini"
    folder.mkdir()
    for table, records in tables.items():
        (folder / f"{table}.json").write_text(json.dumps(records, indent=1))
    return root


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a random world; not to be changed."""
    return write_world(tmp_path_factory.mktemp("worlds") / "world")


@pytest.fixture
def own_world(tmp_path: Path) -> Path:
    """Root of a small random world that the test may spoil."""
    return write_world(tmp_path / "world", samples_per_scene=2, sweeps_between=1)


@pytest.fixture
def edit(own_world: Path) -> Callable[[str, Callable[[list[Record]], object]], Path]:
    """Changes the records of a table of `own_world` in place; returns its path."""

    def change(table: str, how: Callable[[list[Record]], object]) -> Path:
        path = own_world / "v1.0-mini" / f"{table}.json"
        records = json.loads(path.read_text())
        how(records)
        path.write_text(json.dumps(records))
        return path

    return change


@pytest.fixture(scope="session")
def devkit(world: Path) -> Any:
    """The official devkit, opened on `world`."""
    module = pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    return module.NuScenes("v1.0-mini", str(world), verbose=False)
