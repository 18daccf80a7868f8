"""A CMT checkpoint as a run folder of ours."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from aqr import config as configuration
from aqr.cmt.checkpoint import CmtCheckpoint, read_checkpoint
from aqr.cmt.keys import translate
from aqr.config import Config
from aqr.detector import Detector
from aqr.errors import InputError
from aqr.files import write_json
from aqr.training.checkpoint import save_final
from aqr.training.run_folder import RunFolder

RESNET: Final[dict[str, Any]] = {
    "cmt": {"image_backbone": "resnet50", "voxel_size": [0.1, 0.1, 0.2], "sparse_shape": [41, 1024, 1024]},
    "size": [320, 800],
}
VOVNET: Final[dict[str, Any]] = {
    "cmt": {"image_backbone": "vovnet99", "voxel_size": [0.075, 0.075, 0.2], "sparse_shape": [41, 1440, 1440]},
    "size": [640, 1600],
}
"""What weights do not tell, as cmt_voxel0100_r50_800x320 and cmt_voxel0075_vov_1600x640 have it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conversion:
    """What `convert_cmt` did.

    Attributes:
        folder: run folder with config.yaml, checkpoints/final.safetensors and conversion.json.
        config: of the detector.
        used: CMT's names that were taken.
        ignored: CMT's names that were not, because the detector has nothing of the kind.
    """

    folder: Path
    config: Config
    used: tuple[str, ...]
    ignored: tuple[str, ...]

    def lines(self) -> list[str]:
        """A short account for people."""
        settings = self.config.detector
        size = self.config.data.image.size
        lines = [
            f"{len(self.used)} tensors taken, {len(self.ignored)} not: {settings.cmt.image_backbone}, images "
            f"{size[0]} x {size[1]}, voxels {settings.cmt.voxel_size[0]} m, {settings.num_query} queries"
        ]
        lines += [f"  not taken: {name}" for name in self.ignored[:10]]
        if len(self.ignored) > 10:
            lines.append(f"  and {len(self.ignored) - 10} more, see {self.folder / 'conversion.json'}")
        return lines


def convert_cmt(checkpoint: str | Path, out: str | Path, config: str | Path | None = None) -> Conversion:
    """Turn a CMT checkpoint into a run folder that `aqr eval`, `aqr predict` and `train.init_from` take.

    Sizes are read off the weights; voxel size, image size and range come from the config that mmcv stored in the
    checkpoint or, without one, from CMT's published config of that backbone. AQR is off in the written config: the
    folder holds the checkpoint as it is.

    Args:
        checkpoint: `.pth` file of CMT.
        out: run folder, made here.
        config: a config of ours whose settings are taken instead of the inferred ones, such as
            configs/cmt_voxel0100_r50_800x320.yaml.

    Returns:
        Conversion.

    Raises:
        InputError: if the checkpoint cannot be read safely or is none of CMT's, if its weights do not fit the
            config, or if `out` holds a run.
    """
    folder = RunFolder(Path(out))
    if folder.holds_run():
        raise InputError(f"{folder.path}: already holds a run; name another folder")
    source = read_checkpoint(Path(checkpoint))
    settings = infer_config(source) if config is None else _without_aqr(configuration.load(config))
    detector = Detector(settings)
    found = translate(source.tensors, {name: value.shape for name, value in detector.state_dict().items()})
    if not found.used:
        raise InputError(f"{source.path}: none of its {len(source.tensors)} tensors is CMT's; give a CMT checkpoint")
    if found.misfits:
        raise InputError(
            f"{source.path}: does not fit the config ({found.misfits[0]}); name a config of the same sizes with "
            "--config"
        )
    if found.missing:
        raise InputError(
            f"{source.path}: lacks {len(found.missing)} tensors of the detector (first: {found.missing[0]}); give a "
            "checkpoint of the whole fusion detector"
        )
    detector.load_state_dict(found.tensors)
    folder.start(settings)
    save_final(folder, detector, settings, step=0)
    conversion = Conversion(folder.path, settings, found.used, (*found.unknown, *source.others))
    write_json(
        folder.path / "conversion.json",
        {"source": str(source.path), "used": list(conversion.used), "ignored": list(conversion.ignored)},
    )
    return conversion


def infer_config(checkpoint: CmtCheckpoint) -> Config:
    """The config of the detector that a checkpoint belongs to, AQR off.

    Raises:
        InputError: if the checkpoint lacks what sizes are read from, or its own config is not one we can hold.
    """
    weights, said = checkpoint.tensors, checkpoint.settings
    family = VOVNET if any(name.startswith("img_backbone.stem.") for name in weights) else RESNET
    layer = "pts_bbox_head.transformer.decoder.layers."
    queries = _size(checkpoint, "pts_bbox_head.reference_points.weight")
    hidden = _size(checkpoint, "pts_bbox_head.transformer.decoder.post_norm.weight")
    detector: dict[str, Any] = {
        "style": "cmt",
        "num_query": queries,
        "hidden_dim": hidden,
        "num_layers": len({name.split(".")[4] for name in weights if name.startswith(layer)}),
        "feedforward_dim": _size(checkpoint, f"{layer}0.ffns.0.layers.0.0.weight"),
        "image": {"freeze_norm": True},
        "cmt": family["cmt"] | _voxels(said),
    }
    data: dict[str, Any] = {"image": {"size": family["size"]}}
    if isinstance(said.get("point_cloud_range"), list):
        detector["pc_range"] = said["point_cloud_range"]
    augmentation = said.get("ida_aug_conf")
    if isinstance(augmentation, Mapping) and isinstance(augmentation.get("final_dim"), list):
        data["image"]["size"] = augmentation["final_dim"]
    return configuration.parse(
        {"detector": detector, "data": data, "aqr": {"enabled": False}}, f"{checkpoint.path} (its config)"
    )


def _voxels(said: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the voxels, as far as a config of CMT states them."""
    model = said.get("model")
    model = model if isinstance(model, Mapping) else {}
    middle, coder = model.get("pts_middle_encoder"), (model.get("pts_bbox_head") or {}).get("bbox_coder")
    layer, backbone = model.get("pts_voxel_layer"), model.get("img_backbone")
    stated = {
        "voxel_size": said.get("voxel_size"),
        "sparse_shape": (middle or {}).get("sparse_shape"),
        "max_points": (layer or {}).get("max_num_points"),
        "max_voxels": (layer or {}).get("max_voxels"),
        "center_range": (coder or {}).get("post_center_range"),
    }
    if isinstance(backbone, Mapping) and backbone.get("type") == "ResNet":
        stated["image_backbone"] = "resnet50-caffe" if backbone.get("style") == "caffe" else "resnet50"
    return {key: value for key, value in stated.items() if value is not None}


def _size(checkpoint: CmtCheckpoint, name: str) -> int:
    tensor: Tensor | None = checkpoint.tensors.get(name)
    if tensor is None or not tensor.dim():
        raise InputError(f"{checkpoint.path}: lacks {name}, so it is no checkpoint of CMT's fusion detector; give one")
    return tensor.shape[0]


def _without_aqr(config: Config) -> Config:
    return config.model_copy(update={"aqr": config.aqr.model_copy(update={"enabled": False})})
