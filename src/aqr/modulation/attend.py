"""Attend: the queries' weights act on the decoder's attention instead of on the feature maps.

A query's log weight of a sensor is added to its attention logits of all tokens of that sensor, so that before
normalisation each of them counts weight times as much: softmax(q·k + g) with g = ln w. In fused attention that costs
two more dimensions of keys and queries (see `aqr.detector.attention`) and no map. Where every weight is 1 nothing
changes; where one is 0 a query reads the other sensor alone, which makes the choice between the experts of MoME (arXiv
2503.19776) a matter of degree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aqr.modulation.aqr import AQRModulation, Computed


class SensorContext(nn.Module):
    """What a sensor looks like as a whole, told to every query.

    A query's own windows show little of a sensor that is failing: an empty window is common where all is well. Mean and
    largest feature of the BEV map, and of the images that see the query, say more.
    """

    def __init__(self, channels: int) -> None:
        """Args:
        channels: C.
        """
        super().__init__()
        self.lidar = nn.Linear(2 * channels, channels)
        self.camera = nn.Linear(2 * channels, channels)

    def forward(self, bev: Tensor | None, images: Tensor | None, visible: Tensor | None) -> Tensor:
        """Describe the sensors.

        Args:
            bev: [B, C, Hb, Wb].
            images: [B, V, C, Hi, Wi].
            visible: [B, V, Q] which camera sees which query.

        Returns:
            [B, Q or 1, C]; the mean over the cameras that see a query.
        """
        found: Tensor | None = None
        if bev is not None:
            found = self.lidar(torch.cat([bev.mean((-1, -2)), bev.amax((-1, -2))], -1))[:, None]
        if images is not None and visible is not None:
            of_camera = self.camera(torch.cat([images.mean((-1, -2)), images.amax((-1, -2))], -1))
            share = visible / visible.sum(1, keepdim=True).clamp(min=1)
            seen = share.transpose(1, 2).to(of_camera.dtype) @ of_camera
            found = seen if found is None else found + seen
        assert found is not None
        return found


class AttentionRouting(AQRModulation):
    """Routes as `AQRModulation` does and leaves features as they are: out come log weights for attention.

    g = tanh(logit)·ln(max_weight_clamp) per query and sensor, for all decoder layers alike or for each by itself. The
    last layer starts at zero: a new module changes nothing.
    """

    def __init__(
        self,
        channels: int,
        pc_range: Sequence[float],
        *,
        layers: int = 1,
        window_sizes: tuple[int, int] = (5, 9),
        num_heads: int = 4,
        max_weight_clamp: float = 20.0,
        context: bool = False,
    ) -> None:
        """Args:
            channels: C of queries and feature maps.
            pc_range: see `AQRModulation`.
            layers: L decoder layers with weights of their own; 1 for weights that all layers share.
            window_sizes: see `AQRModulation`.
            num_heads: see `AQRModulation`.
            max_weight_clamp: largest weight; the smallest is its inverse.
            context: whether the router is told what each sensor looks like as a whole (`SensorContext`).

        Raises:
            ValueError: where a setting is out of its range.
        """
        super().__init__(
            channels,
            pc_range,
            window_sizes=window_sizes,
            num_heads=num_heads,
            parameterisation="centered",
            max_weight_clamp=max_weight_clamp,
            residual_weight=1.0,
            gate=False,
        )
        self.layers = layers
        self.router.logits = nn.Linear(channels, 2 * layers)
        nn.init.zeros_(self.router.logits.weight)
        nn.init.zeros_(self.router.logits.bias)
        self.context = SensorContext(channels) if context else None

    def _compute(
        self,
        query_embed: Tensor,
        reference_points: Tensor,
        bev: Tensor | None,
        images: Tensor | None,
        lidar2img: Tensor | None,
        image_size: tuple[int, int] | None,
        bev_position: Tensor | None,
        image_position: Tensor | None,
    ) -> Computed:
        """Fields with `log_weights`, the features as they came and no maps; weights are the geometric mean over the
        layers.
        """
        bev_view, image_view = self._views(
            query_embed, reference_points, bev, images, lidar2img, image_size, bev_position, image_position
        )
        visible = None if image_view is None else image_view[1].visible
        if image_view is None:
            images = None
        asking = query_embed
        if self.context is not None:
            asking = asking + self.context(bev, images, visible)
        state = self.router.state(asking, bev_view, image_view)
        with torch.autocast(query_embed.device.type, enabled=False):
            logits = self.router.logits(state.to(self.router.logits.weight.dtype))
            log_weights = logits.unflatten(-1, (self.layers, 2)).movedim(-2, 0).tanh() * math.log(self.max_weight_clamp)
            weights = log_weights.mean(0).exp()
        fields = {
            "bev": bev,
            "images": images,
            "lidar_weights": weights[..., 0],
            "camera_weights": weights[..., 1],
            "bev_map": None,
            "image_maps": None,
            "visible": visible,
            "max_weight_clamp": self.max_weight_clamp,
            "log_weights": log_weights,
        }
        return fields, None
