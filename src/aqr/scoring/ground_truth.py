"""Ground truth of a split, from the index of a data set."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from aqr.data.index import Index
from aqr.errors import InputError
from aqr.scoring.boxes import GroundTruth, Racks, Samples


def load_ground_truth(index: Index, samples: npt.NDArray[np.integer]) -> GroundTruth:
    """What detections of some samples are scored against.

    Args:
        index: an opened data set.
        samples: [S] rows of its samples, such as `index.split("val")`.

    Raises:
        InputError: where none of the samples has an annotated box, as in v1.0-test.
    """
    boxes = index.ground_truth(samples)
    if not len(boxes.sample):
        raise InputError(
            f"{index.root / index.version}/sample_annotation.json: no box of the ten classes in these samples; "
            "choose a split that is annotated"
        )
    scenes, scene = np.unique(index.samples.scene[samples], return_inverse=True)
    words = _scene_words(index)
    rows = boxes.annotation
    return GroundTruth(
        samples=Samples(
            tokens=tuple(boxes.sample_tokens),
            ego=boxes.ego_translation,
            scene=scene,
            racks=Racks(
                sample=boxes.rack_sample,
                translation=boxes.rack_translation,
                size=boxes.rack_size,
                rotation=boxes.rack_rotation,
            ),
            night=np.array(["night" in words[row] for row in scenes], dtype=bool)[scene],
            rain=np.array(["rain" in words[row] for row in scenes], dtype=bool)[scene],
        ),
        sample=boxes.sample,
        translation=boxes.translation,
        size=boxes.size,
        rotation=boxes.rotation,
        velocity=boxes.velocity,
        label=boxes.label,
        attribute=boxes.attribute,
        num_points=boxes.num_pts,
        num_lidar_points=index.annotations.num_lidar_pts[rows].astype(np.int64),
        visibility=index.annotations.visibility[rows].astype(np.int64),
    )


def _scene_words(index: Index) -> list[str]:
    """Descriptions of the scenes in lower case; nuScenes says there whether it is night or rains."""
    scenes = json.loads((index.root / index.version / "scene.json").read_text(encoding="utf-8"))
    return [str(scene.get("description", "")).lower() for scene in scenes]
