"""Bodies of the ten classes: inside their boxes, filling them, and of nuScenes' sizes."""

import numpy as np
import pytest
from scipy.spatial import HalfspaceIntersection

from aqr.synth.objects import MEAN_SIZE, SLACK, Model, build
from aqr.synth.solids import Solids
from aqr.taxonomy import CLASS_OF_CATEGORY, CLASSES


def vertices(solids: Solids, k: int) -> np.ndarray:
    """Corner points of a solid, by Qhull."""
    n = solids.planes[k]
    planes = np.column_stack([solids.normals[k, :n], -solids.offsets[k, :n]])
    centre = solids.corners[k].mean(axis=0)
    best, inside = centre, (planes[:, :3] @ centre + planes[:, 3]).max()
    rng = np.random.default_rng(0)
    low, high = solids.corners[k].min(axis=0), solids.corners[k].max(axis=0)
    for candidate in rng.uniform(low, high, (400, 3)):
        reach = (planes[:, :3] @ candidate + planes[:, 3]).max()
        if reach < inside:
            best, inside = candidate, reach
    return np.asarray(HalfspaceIntersection(planes, best).intersections)


def individuals(name: str, count: int) -> list[Model]:
    return [build(name, np.random.default_rng(seed), rider=bool(seed % 2)) for seed in range(count)]


@pytest.mark.parametrize("name", CLASSES)
def test_bodies_fill_their_boxes(name: str) -> None:
    for model in individuals(name, 4):
        points = np.concatenate([vertices(model.solids, k) for k in range(len(model.solids))])
        half = np.array(model.size) / 2
        low, high = points.min(axis=0), points.max(axis=0)
        assert (low >= [-half[0], -half[1], -0.005]).all()
        assert (high <= [half[0], half[1], model.size[2]]).all()
        room = 2 * SLACK + 0.08
        assert (high - low >= np.array(model.size) - room).all(), "the box is much larger than the body"


@pytest.mark.parametrize("name", CLASSES)
def test_bounding_corners_contain_the_solids(name: str) -> None:
    for model in individuals(name, 3):
        for k in range(len(model.solids)):
            points = vertices(model.solids, k)
            a, b, d, e = model.solids.corners[k][[0, 1, 3, 4]]
            for axis in (b - a, d - a, e - a):
                share = (points - a) @ axis / (axis @ axis)
                assert share.min() > -1e-6
                assert share.max() < 1 + 1e-6


@pytest.mark.parametrize("name", CLASSES)
def test_sizes_are_those_of_nuscenes_on_average(name: str) -> None:
    sizes = np.array([build(name, np.random.default_rng(s)).size for s in range(300)])
    mean = np.array(MEAN_SIZE[name])
    if name in ("bicycle", "motorcycle"):
        mean, sizes = mean[:2], sizes[:, :2]
    assert np.allclose(sizes.mean(axis=0), mean, rtol=0.04)
    assert (sizes.std(axis=0) > 0.02 * mean).all()


def test_categories_map_to_their_classes() -> None:
    for name in CLASSES:
        assert {CLASS_OF_CATEGORY[m.category] for m in individuals(name, 20)} == {name}
    kinds = {build("pedestrian", np.random.default_rng(s), worker=s % 2 == 0).category for s in range(100)}
    assert {k.rsplit(".", 1)[1] for k in kinds} == {"adult", "child", "construction_worker"}


def test_no_two_individuals_are_alike() -> None:
    assert len({m.size for m in individuals("car", 50)}) == 50
