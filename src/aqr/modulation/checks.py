"""Check: what `AQRModulation` refuses, with a sentence that says what it was given.

Settings are checked when a module is built, shapes and dtypes at every call (they are plain numbers, also to a
compiler), values once, because looking at them waits for the device.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

MARGIN = 0.1
"""How far a reference point may lie outside [0, 1] before it counts as misplaced: learned points wander a little."""
MISPLACED = 0.5
"""Share of misplaced reference points that no detector in its right units reaches."""


def check_settings(
    *,
    channels: int,
    pc_range: Sequence[float],
    window_sizes: Sequence[int],
    num_heads: int,
    gaussian_sigma: float,
    min_weight_threshold: float,
    max_weight_clamp: float,
    residual_weight: float,
    gate: bool,
    gains: Sequence[float],
    class_residuals: Sequence[float] | None,
    choices: Sequence[tuple[str, Sequence[str]]],
) -> None:
    """Settings of `AQRModulation`, see there; NaN lies in no range. `choices` are names, each with those known.

    Raises:
        ValueError: naming the setting.
    """
    for name, count in (("channels", channels), ("num_heads", num_heads)):
        if not _is_count(count):
            raise ValueError(f"{name} must be a positive whole number, not {count!r}")
    if not _is_pair(window_sizes) or not all(_is_count(size) and size % 2 for size in window_sizes):
        raise ValueError(f"window_sizes must be two odd positive numbers, BEV and image, not {window_sizes!r}")
    if len(pc_range) != 6 or not all(-math.inf < pc_range[i] < pc_range[i + 3] < math.inf for i in range(3)):
        raise ValueError(f"pc_range must be x_min, y_min, z_min, x_max, y_max, z_max, not {list(pc_range)}")
    if not 0 <= residual_weight <= 1:
        raise ValueError(f"residual_weight must lie in [0, 1], not {residual_weight}")
    if not 1 <= max_weight_clamp < math.inf:
        raise ValueError(f"max_weight_clamp must be a number of at least 1, not {max_weight_clamp}")
    if not 0 <= min_weight_threshold < math.inf:
        raise ValueError(f"min_weight_threshold must be a number of at least 0, not {min_weight_threshold}")
    if class_residuals is not None and not len(class_residuals):
        raise ValueError("class_residuals must be one number a class, not empty")
    if class_residuals is not None and not all(0 <= residual <= 1 for residual in class_residuals):
        raise ValueError(f"class_residuals must lie in [0, 1], not {list(class_residuals)}")
    if not _is_pair(gains) or not all(0 < gain < math.inf for gain in gains):
        raise ValueError(f"gains must be two positive numbers, LiDAR and camera, not {gains!r}")
    if not 0 < gaussian_sigma < math.inf:
        raise ValueError(f"gaussian_sigma must be a positive number, not {gaussian_sigma}")
    if not isinstance(gate, bool):
        raise ValueError(f"gate must be True or False, not {gate!r}")
    for value, known in choices:
        if value not in known:
            raise ValueError(f"{value!r} is none of {', '.join(known)}")


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= 1


def _is_pair(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2


def check_shapes(
    like: Tensor,
    query_embed: Tensor,
    reference_points: Tensor,
    bev: Tensor | None,
    images: Tensor | None,
    lidar2img: Tensor | None,
    image_size: tuple[int, int] | None,
    bev_position: Tensor | None,
    image_position: Tensor | None,
) -> None:
    """Types, shapes and dtypes of what `AQRModulation` is called with, see there; `like` is a weight [C, C] of it.

    Raises:
        ValueError: naming what does not fit, and to what.
    """
    for name, value in (
        ("query_embed", query_embed),
        ("reference_points", reference_points),
        ("bev", bev),
        ("images", images),
        ("lidar2img", lidar2img),
        ("bev_position", bev_position),
        ("image_position", image_position),
    ):
        optional = name not in ("query_embed", "reference_points")
        if not (isinstance(value, Tensor) or (optional and value is None)):
            raise ValueError(f"{name} must be a torch.Tensor, not {type(value).__module__}.{type(value).__name__}")
    channels = like.shape[1]
    if query_embed.dim() != 3 or query_embed.shape[2] != channels:
        raise ValueError(
            f"query_embed must be [B, Q, {channels}], as the module has channels={channels}, "
            f"not {list(query_embed.shape)}"
        )
    batch, count, _ = query_embed.shape
    queries = f"query_embed is [B, Q, C] = {list(query_embed.shape)}"
    if reference_points.shape != (batch, count, 3):
        turned = reference_points.shape == (count, batch, 3)
        mend = "; both have the batch first" if turned else ""
        raise ValueError(
            f"reference_points must be {[batch, count, 3]}, not {list(reference_points.shape)}, where {queries}{mend}"
        )
    if bev is not None:
        if bev.dim() != 4 or bev.shape[:2] != (batch, channels):
            raise ValueError(f"bev must be [{batch}, {channels}, Hb, Wb], not {list(bev.shape)}, where {queries}")
        _check_position("bev_position", bev_position, bev, "[Hb, Wb, C] or [B, Hb, Wb, C]")
    if images is not None:
        if images.dim() != 5 or (images.shape[0], images.shape[2]) != (batch, channels):
            raise ValueError(
                f"images must be [{batch}, V, {channels}, Hi, Wi], not {list(images.shape)}, where {queries}"
            )
        if images.shape[1]:
            _check_cameras(images, lidar2img, image_size)
            _check_position("image_position", image_position, images, "[B, V, Hi, Wi, C]")
    for name, value in (("query_embed", query_embed), ("bev", bev), ("images", images)):
        if value is not None and not value.is_floating_point():
            raise ValueError(f"{name} must be floating-point features, not {value.dtype}")
    if query_embed.dtype != like.dtype and not torch.is_autocast_enabled(query_embed.device.type):
        raise ValueError(
            f"query_embed is {query_embed.dtype} where the module is {like.dtype}; use query_embed.to({like.dtype}) or "
            "call the module under torch.autocast (feature maps may have any floating-point dtype)"
        )


def _check_cameras(images: Tensor, lidar2img: Tensor | None, image_size: tuple[int, int] | None) -> None:
    if lidar2img is None or image_size is None:
        raise ValueError("images need lidar2img and image_size")
    expected = [*images.shape[:2], 4, 4]
    if list(lidar2img.shape) != expected:
        raise ValueError(f"lidar2img must be {expected}, not {list(lidar2img.shape)}")
    if not _is_pair(image_size) or not all(side > 0 for side in image_size):
        raise ValueError(f"image_size must be the height and width of the images in pixels, not {image_size!r}")


def _check_position(name: str, position: Tensor | None, features: Tensor, form: str) -> None:
    if position is None:
        return
    cells = [features.shape[-2], features.shape[-1], features.shape[-3]]
    allowed = [[*features.shape[:-3], *cells], *([cells] if features.dim() == 4 else [])]
    if list(position.shape) not in allowed:
        raise ValueError(f"{name} must be {form} = {allowed[0]} as the features are, not {list(position.shape)}")


def can_look(points: Tensor) -> bool:
    """Whether values may be read here: not where a graph is made of the call or torch.func transforms it."""
    # A subclass, such as that of fake tensors, may hold nothing.
    if type(points) not in (Tensor, nn.Parameter) or points.is_meta or not points.numel():
        return False
    if torch._C._are_functorch_transforms_active():
        return False
    return not (points.is_cuda and torch.cuda.is_current_stream_capturing())


@torch.no_grad()
def check_values(reference_points: Tensor, lidar2img: Tensor | None, seen: Tensor | None) -> None:
    """Values with which AQR would do nothing for ever, without a word. Waits for the device once.

    Warns where no camera sees any query, which a small batch may bring about.

    Args:
        reference_points: [B, Q, 3], B and Q at least 1.
        lidar2img: [B, V, 4, 4]; None without cameras.
        seen: [B, V, Q] which camera sees which query; None without cameras.

    Raises:
        ValueError: where a value is not finite, or more than half of the points lie far outside [0, 1].
    """
    points = reference_points.flatten(0, 1)
    outside = ((points < -MARGIN) | (points > 1 + MARGIN)).any(-1)
    finite = points.new_ones(()).bool() if lidar2img is None else lidar2img.isfinite().all()
    visible = points.new_ones(()).bool() if seen is None else seen.any()
    found = torch.stack([points.isfinite().all(), finite, visible, outside.float().mean()])
    points_finite, matrices_finite, any_visible, misplaced = found.tolist()
    if not points_finite:
        raise ValueError("reference_points must be finite, but hold NaN or infinity")
    if not matrices_finite:
        raise ValueError("lidar2img must be finite, but holds NaN or infinity")
    if misplaced > MISPLACED:
        raise ValueError(
            f"reference_points must lie in [0, 1]³ of pc_range, but {100 * misplaced:.0f} % lie outside, up to "
            f"{float(points.abs().max()):.3g}; points in metres p become (p - pc_range[:3]) / (pc_range[3:] - "
            "pc_range[:3])"
        )
    if not any_visible:
        logger.warning(
            "no camera sees any of the %d queries of the first batch, so AQR cannot route them by images; lidar2img "
            "must lead from the LiDAR frame (metres) to pixels of an image of image_size",
            len(points),
        )
