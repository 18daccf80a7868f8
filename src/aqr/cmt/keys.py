"""Where every tensor of a CMT checkpoint goes: one table, a row per kind of tensor.

A source may hold placeholders, `{n}`, each of which stands for one part of a dotted name (or a piece of one) and fills
the same placeholder of the targets. Most tensors are taken as they are; the third column says what is done to others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Size, Tensor

Change = Callable[[Tensor, Size], tuple[Tensor, ...]]
"""A tensor, and the shape of the first target, to one tensor per target."""


def as_it_is(tensor: Tensor, shape: Size) -> tuple[Tensor, ...]:
    """Unchanged."""
    return (tensor,)


def thirds(tensor: Tensor, shape: Size) -> tuple[Tensor, ...]:
    """Query, key and value projections that lie behind one another."""
    return tensor.chunk(3)


def by_layer(tensor: Tensor, shape: Size) -> tuple[Tensor, ...]:
    """Rows grouped by decoder layer, [L · C] to [L, 1, C]."""
    return (tensor.reshape(shape[0], 1, -1),)


def matrix_by_layer(tensor: Tensor, shape: Size) -> tuple[Tensor, ...]:
    """A grouped 1 x 1 convolution, [L · outputs, inputs, 1], to [L, inputs, outputs]."""
    return (tensor.reshape(shape[0], -1, tensor.shape[1]).transpose(1, 2),)


def channels_outside(tensor: Tensor, shape: Size) -> tuple[Tensor, ...]:
    """Sparse weights [outputs, kz, ky, kx, inputs] as spconv 2 has them; spconv 1 had [kz, ky, kx, inputs, outputs]."""
    older = tensor.dim() == 5 and tensor.shape != shape and tensor.permute(4, 0, 1, 2, 3).shape == shape
    return (tensor.permute(4, 0, 1, 2, 3),) if older else (tensor,)


Row = tuple[str, tuple[str, ...], Change]

_HEAD: Final = "pts_bbox_head."
_LAYER: Final = "pts_bbox_head.transformer.decoder.layers.{n}."
_QKV: Final = ("query", "key", "value")

TABLE: Final[tuple[Row, ...]] = (
    # head: position embeddings and queries
    (_HEAD + "reference_points.weight", ("reference_points",), as_it_is),
    (_HEAD + "bev_embedding.{i}.{t}", ("position.bev.mlp.{i}.{t}",), as_it_is),
    (_HEAD + "rv_embedding.{i}.{t}", ("position.ray.mlp.{i}.{t}",), as_it_is),
    # head: decoder
    (
        _LAYER + "attentions.0.attn.in_proj_{t}",
        tuple(f"decoder.layers.{{n}}.self_attention.{name}.{{t}}" for name in _QKV),
        thirds,
    ),
    (_LAYER + "attentions.0.attn.out_proj.{t}", ("decoder.layers.{n}.self_attention.out.{t}",), as_it_is),
    (
        _LAYER + "attentions.1.attn.in_proj_{t}",
        tuple(f"decoder.layers.{{n}}.cross_attention.{name}.{{t}}" for name in _QKV),
        thirds,
    ),
    (_LAYER + "attentions.1.attn.out_proj.{t}", ("decoder.layers.{n}.cross_attention.out.{t}",), as_it_is),
    (_LAYER + "ffns.0.layers.0.0.{t}", ("decoder.layers.{n}.feedforward.0.{t}",), as_it_is),
    (_LAYER + "ffns.0.layers.1.{t}", ("decoder.layers.{n}.feedforward.2.{t}",), as_it_is),
    (_LAYER + "norms.{i}.{t}", ("decoder.layers.{n}.norms.{i}.{t}",), as_it_is),
    (_HEAD + "transformer.decoder.post_norm.{t}", ("decoder.post_norm.{t}",), as_it_is),
    # head: task heads
    (_HEAD + "task_heads.0.{h}.0.weight", ("heads.{h}.hidden.weight",), matrix_by_layer),
    (_HEAD + "task_heads.0.{h}.1.{t}", ("heads.{h}.norm_{t}",), by_layer),
    (_HEAD + "task_heads.0.{h}.3.weight", ("heads.{h}.out.weight",), matrix_by_layer),
    (_HEAD + "task_heads.0.{h}.3.bias", ("heads.{h}.out.bias",), by_layer),
    # LiDAR
    ("pts_middle_encoder.conv_input.0.weight", ("lidar_encoder.middle.conv_input.conv.weight",), channels_outside),
    ("pts_middle_encoder.conv_input.1.{t}", ("lidar_encoder.middle.conv_input.norm.{t}",), as_it_is),
    (
        "pts_middle_encoder.encoder_layers.encoder_layer{n}.{i}.conv{j}.weight",
        ("lidar_encoder.middle.stages.{n}.{i}.conv{j}.weight",),
        channels_outside,
    ),
    (
        "pts_middle_encoder.encoder_layers.encoder_layer{n}.{i}.bn{j}.{t}",
        ("lidar_encoder.middle.stages.{n}.{i}.norm{j}.{t}",),
        as_it_is,
    ),
    (
        "pts_middle_encoder.encoder_layers.encoder_layer{n}.{i}.0.weight",
        ("lidar_encoder.middle.stages.{n}.{i}.conv.weight",),
        channels_outside,
    ),
    (
        "pts_middle_encoder.encoder_layers.encoder_layer{n}.{i}.1.{t}",
        ("lidar_encoder.middle.stages.{n}.{i}.norm.{t}",),
        as_it_is,
    ),
    ("pts_middle_encoder.conv_out.0.weight", ("lidar_encoder.middle.conv_out.conv.weight",), channels_outside),
    ("pts_middle_encoder.conv_out.1.{t}", ("lidar_encoder.middle.conv_out.norm.{t}",), as_it_is),
    ("pts_backbone.blocks.{n}.{i}.{t}", ("lidar_encoder.backbone.{n}.{i}.{t}",), as_it_is),
    ("pts_neck.deblocks.{n}.{i}.{t}", ("lidar_encoder.neck.{n}.{i}.{t}",), as_it_is),
    (_HEAD + "shared_conv.conv.weight", ("lidar_encoder.shared_conv.0.weight",), as_it_is),
    (_HEAD + "shared_conv.bn.{t}", ("lidar_encoder.shared_conv.1.{t}",), as_it_is),
    # images: neck, ResNet, VoVNet
    ("img_neck.lateral_convs.{n}.conv.{t}", ("image_encoder.neck.laterals.{n}.{t}",), as_it_is),
    ("img_neck.fpn_convs.0.conv.{t}", ("image_encoder.neck.out.{t}",), as_it_is),
    ("img_backbone.conv1.weight", ("image_encoder.backbone.conv1.weight",), as_it_is),
    ("img_backbone.bn1.{t}", ("image_encoder.backbone.bn1.{t}",), as_it_is),
    (
        "img_backbone.layer{n}.{i}.downsample.{j}.{t}",
        ("image_encoder.backbone.layer{n}.{i}.downsample.{j}.{t}",),
        as_it_is,
    ),
    ("img_backbone.layer{n}.{i}.{m}.{t}", ("image_encoder.backbone.layer{n}.{i}.{m}.{t}",), as_it_is),
    ("img_backbone.stem.stem_{n}/{m}.{t}", ("image_encoder.backbone.stem.{n}.{m}.{t}",), as_it_is),
    (
        "img_backbone.stage{s}.OSA{s}_{b}.layers.{i}.OSA{s}_{b}_{i}/{m}.{t}",
        ("image_encoder.backbone.stages.{s}.{b}.layers.{i}.{m}.{t}",),
        as_it_is,
    ),
    (
        "img_backbone.stage{s}.OSA{s}_{b}.concat.OSA{s}_{b}_concat/{m}.{t}",
        ("image_encoder.backbone.stages.{s}.{b}.concat.{m}.{t}",),
        as_it_is,
    ),
    (
        "img_backbone.stage{s}.OSA{s}_{b}.ese.fc.{t}",
        ("image_encoder.backbone.stages.{s}.{b}.excite.{t}",),
        as_it_is,
    ),
)


@dataclass(frozen=True)
class Translation:
    """What became of a checkpoint's tensors.

    Attributes:
        tensors: by the detector's names; every one has the detector's shape.
        used: the checkpoint's names that were taken.
        unknown: its names that no row of the table knows or whose target the detector does not have.
        misfits: sentences on tensors of another shape than the detector's.
        missing: the detector's names that nothing was found for.
    """

    tensors: dict[str, Tensor]
    used: tuple[str, ...]
    unknown: tuple[str, ...]
    misfits: tuple[str, ...]
    missing: tuple[str, ...]


def translate(checkpoint: Mapping[str, Tensor], shapes: Mapping[str, Size]) -> Translation:
    """Rename and reshape a checkpoint's tensors by `TABLE`; every key ends in `used`, `unknown` or `misfits`.

    Args:
        checkpoint: CMT's tensors by name.
        shapes: the detector's names and shapes.
    """
    tensors: dict[str, Tensor] = {}
    used, unknown, misfits = [], [], []
    for name, tensor in checkpoint.items():
        targets, change = _targets(name)
        if not targets or any(target not in shapes for target in targets):
            unknown.append(name)
            continue
        try:
            parts = change(tensor, shapes[targets[0]])
        except RuntimeError:
            parts = ()
        if len(parts) != len(targets) or any(p.shape != shapes[t] for p, t in zip(parts, targets, strict=True)):
            misfits.append(f"{name} is {list(tensor.shape)}, {targets[0]} needs {list(shapes[targets[0]])}")
            continue
        tensors.update(zip(targets, parts, strict=True))
        used.append(name)
    missing = tuple(name for name in shapes if name not in tensors)
    return Translation(tensors, tuple(used), tuple(unknown), tuple(misfits), missing)


def _targets(name: str) -> tuple[tuple[str, ...], Change]:
    for pattern, targets, change in _PATTERNS:
        found = pattern.fullmatch(name)
        if found:
            return tuple(target.format(**found.groupdict()) for target in targets), change
    return (), as_it_is


def _compile(source: str) -> re.Pattern[str]:
    """A regular expression; a placeholder that comes again must match the same text again."""
    seen: set[str] = set()
    parts = []
    for piece in re.split(r"(\{\w+\})", source):
        label = piece[1:-1]
        if not piece.startswith("{"):
            parts.append(re.escape(piece))
        elif label in seen:
            parts.append(f"(?P={label})")
        else:
            seen.add(label)
            parts.append(f"(?P<{label}>[^./]+?)")
    return re.compile("".join(parts))


_PATTERNS: Final = tuple((_compile(source), targets, change) for source, targets, change in TABLE)
