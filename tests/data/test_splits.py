import pytest

from aqr.data import splits
from aqr.errors import InputError


def test_scene_lists_are_the_official_ones() -> None:
    official = pytest.importorskip("nuscenes.utils.splits").create_splits_scenes()
    assert set(official) == set(splits.SPLITS)
    for name, scenes in official.items():
        assert splits.scenes_of(name) == set(scenes)


def test_sizes() -> None:
    assert {name: len(splits.scenes_of(name)) for name in splits.SPLITS} == {
        "train": 700,
        "val": 150,
        "train_detect": 350,
        "train_track": 350,
        "mini_train": 8,
        "mini_val": 2,
        "test": 150,
    }


def test_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no split 'trian'.*mini_val"):
        splits.scenes_of("trian")


@pytest.mark.parametrize(
    ("split", "version"), [("val", "v1.0-mini"), ("mini_val", "v1.0-trainval"), ("val", "v1.0-test")]
)
def test_split_of_another_version_is_refused(split: str, version: str) -> None:
    with pytest.raises(InputError, match=f"'{split}' is not part of version {version}"):
        splits.check_version(split, version)


def test_split_of_its_version_is_accepted() -> None:
    splits.check_version("train", "v1.0-trainval")
    splits.check_version("mini_val", "v1.0-mini")
