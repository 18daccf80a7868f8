"""CMT's task heads, whose names mislead: what each of their ten channels means, and the box code made of them."""

from __future__ import annotations

from typing import Final, Literal

import torch
from torch import Tensor

from aqr import geometry
from aqr.detector.cmt.position import inverse_sigmoid
from aqr.detector.heads import PARTS, TaskHeads

BoxConvention = Literal["mmdet3d-1", "mmdet3d-0"]

CHANNELS: Final = ("x", "y", "first size", "second size", "z", "height", "sin", "cos", "vx", "vy")
"""Meaning of the outputs of center (2), height (1), dim (3), rot (2) and vel (2): CMT's losses and its box coder read
`height` as the logarithm of the first size and `dim` as those of the second size, *the height of the centre* and the
logarithm of the box's height. So the first size is bounded to the exponential of the z range, and a reference point's
z is added to a size."""


class CmtTaskHeads(TaskHeads):
    """The six heads with CMT's reading of their channels, as box codes of `aqr.detector.coding`.

    Args:
        layers: L.
        dim: C.
        pc_range: x_min, y_min, z_min, x_max, y_max, z_max, metres.
        boxes: what the two horizontal sizes and the angle are. `mmdet3d-1`: length, width, counter-clockwise from +x.
            `mmdet3d-0` (SECOND's, before mmdet3d 1.0): width, length, and -yaw - π/2.
    """

    def __init__(self, layers: int, dim: int, pc_range: tuple[float, ...], boxes: BoxConvention = "mmdet3d-1") -> None:
        super().__init__(layers, dim, pc_range, hidden_bias=False)
        self.boxes = boxes

    def forward(self, states: Tensor, reference_points: Tensor) -> tuple[Tensor, Tensor]:
        """Read the boxes off the queries' states, in float32.

        Args:
            states: [L, B, Q, C].
            reference_points: [B, Q, 3] in [0, 1]³ of pc_range.

        Returns:
            Class logits [L, B, Q, 10] and box codes [L, B, Q, 10] (see `aqr.detector.coding`).
        """
        with torch.autocast(states.device.type, enabled=False):
            logits, channels = self.channels(states, reference_points)
            x, y, first, second, z, height, sin, cos, vx, vy = channels.unbind(-1)
            if self.boxes == "mmdet3d-0":
                first, second, sin, cos = second, first, -cos, -sin
            codes = torch.stack([x, y, z, first, second, height, sin, cos, vx, vy], -1)
        return logits, codes

    def channels(self, states: Tensor, reference_points: Tensor) -> tuple[Tensor, Tensor]:
        """The heads' outputs before they are put in order.

        Args:
            states: [L, B, Q, C]; values that are not finite count as numbers, as in CMT.
            reference_points: [B, Q, 3] in [0, 1]³ of pc_range, clamped to it.

        Returns:
            Class logits [L, B, Q, 10] and `CHANNELS` [L, B, Q, 10].
        """
        shape = states.shape[:3]
        found = self.read(states.float().nan_to_num().flatten(1, 2)).view(*shape, -1)
        offset, rest, logits = torch.split(found, PARTS, -1)
        unit = (offset + inverse_sigmoid(reference_points.float())).sigmoid()
        return logits, torch.cat([geometry.denormalise(unit, self.pc_range), rest], -1)
