"""AQRModulation: route, render and modulate in one module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from aqr.modulation.modulate import Form, ModulationType, modulate
from aqr.modulation.render import RenderMethod, centered_map, sigmoid_map
from aqr.modulation.residual import ClassResidual, residual_map
from aqr.modulation.route import Router
from aqr.modulation.sites import Sites, bev_sites, image_sites

Parameterisation = Literal["sigmoid", "centered"]

View = tuple[Tensor, Sites]
"""Tokens [B, V, H, W, C] of a sensor's maps, and where the queries lie in them."""

SIGMOID_BIAS = 1.5
"""Start of the logits' bias in the `sigmoid` parameterisation: a weight of 0.82."""


@dataclass(frozen=True)
class AQROutput:
    """What AQR made of one batch. A field is None where its sensor is absent.

    Attributes:
        bev: modulated BEV features [B, C, Hb, Wb].
        images: modulated image features [B, V, C, Hi, Wi].
        lidar_weights: [B, Q] the queries' LiDAR weights, in (0, 1) for `sigmoid`, in
            [1/max_weight_clamp, max_weight_clamp] for `centered`.
        camera_weights: [B, Q] likewise; of no effect for a query that no camera sees.
        bev_map: [B, Hb, Wb] weight map.
        image_maps: [B, V, Hi, Wi] weight maps.
        visible: [B, V, Q] which camera sees which query.
        max_weight_clamp: upper bound of the maps.
        class_logits: [B, Q, classes] the router's estimate of what stands at each query; None unless the residual
            is by class.
        bev_residual: [B, Hb, Wb] residual map; None unless the residual is by class.
        image_residuals: [B, V, Hi, Wi] likewise.
        log_weights: [L or 1, B, Q, 2] LiDAR and camera, for the attention of the decoder's layers; None where weights
            act on the features.
    """

    bev: Tensor | None
    images: Tensor | None
    lidar_weights: Tensor
    camera_weights: Tensor
    bev_map: Tensor | None
    image_maps: Tensor | None
    visible: Tensor | None
    max_weight_clamp: float
    class_logits: Tensor | None = None
    bev_residual: Tensor | None = None
    image_residuals: Tensor | None = None
    log_weights: Tensor | None = None


class AQRModulation(nn.Module):
    """Adaptive Query Routing between the encoders and the decoder of a LiDAR-camera detector.

    *Route*: each query's reference point is projected into the BEV map and the images, and local attention there
    gives the query a LiDAR and a camera weight. *Render*: the weights are splatted around those points into a BEV
    weight map and image weight maps bounded by `max_weight_clamp`. *Modulate*: the feature maps are scaled by the
    maps, `residual_weight` of the original being kept.

    With `gate` (the default), and with `centered` in the convex form, a new module returns its input unchanged, so a
    pretrained detector starts from its own loss.

    Example:
        >>> import torch, aqr
        >>> routing = aqr.AQRModulation(channels=32, pc_range=(-54, -54, -5, 54, 54, 3))
        >>> queries, points = torch.randn(2, 50, 32), torch.rand(2, 50, 3)
        >>> bev, images = torch.randn(2, 32, 16, 16), torch.randn(2, 6, 32, 4, 10)
        >>> lidar2img = torch.eye(4).expand(2, 6, 4, 4)
        >>> out = routing(queries, points, bev, images, lidar2img, image_size=(64, 160))
        >>> out.bev.shape, out.images.shape
        (torch.Size([2, 32, 16, 16]), torch.Size([2, 6, 32, 4, 10]))
    """

    pc_range: Tensor
    gains: Tensor

    def __init__(
        self,
        channels: int,
        pc_range: Sequence[float],
        *,
        window_sizes: tuple[int, int] = (5, 9),
        num_heads: int = 4,
        parameterisation: Parameterisation = "sigmoid",
        render_method: RenderMethod = "gaussian",
        gaussian_sigma: float = 1.0,
        min_weight_threshold: float = 0.01,
        max_weight_clamp: float = 2.0,
        modulation_type: ModulationType = "element_wise",
        residual_weight: float = 0.7,
        form: Form = "convex",
        gate: bool = True,
        gains: tuple[float, float] = (1.0, 1.0),
        class_residuals: Sequence[float] | None = None,
    ) -> None:
        """Args:
            channels: C of queries and feature maps.
            pc_range: x_min, y_min, z_min, x_max, y_max, z_max of the reference points, metres, LiDAR frame.
            window_sizes: side of the attended window in the BEV map and in an image map, cells, odd.
            num_heads: attention heads of the router.
            parameterisation: how logits become weights. `sigmoid`: w = sigmoid(logit), summed in the map, 0 where no
                query is. `centered`: w = max_weight_clamp^tanh(logit), averaged in the map, 1 where no query is.
            render_method: kernel, see `aqr.modulation.render.splat`.
            gaussian_sigma: width of the kernel, cells.
            min_weight_threshold: `sigmoid` maps are 0 below it.
            max_weight_clamp: upper bound of the weight maps, >= 1.
            modulation_type: weight per cell, mean of the map, or 0.7 / 0.3 of the two.
            residual_weight: r in [0, 1], the share of the original features that is kept.
            form: `convex` F' = r·F + (1 − r)·W·F, or `additive` F' = r·F + W·F.
            gate: F'' = F + tanh(α)·(F' − F) with one learned α per sensor, starting at 0.
            gains: the LiDAR weights and the camera weights are multiplied by these before the maps are bounded.
            class_residuals: r of every class; `residual_weight` then holds where no query is. None (the default)
                builds no class head.

        Raises:
            ValueError: where a setting is out of its range.
        """
        super().__init__()
        if len(pc_range) != 6 or any(pc_range[i] >= pc_range[i + 3] for i in range(3)):
            raise ValueError(f"pc_range must be x_min, y_min, z_min, x_max, y_max, z_max, not {list(pc_range)}")
        if not 0 <= residual_weight <= 1:
            raise ValueError(f"residual_weight must lie in [0, 1], not {residual_weight}")
        if max_weight_clamp < 1:
            raise ValueError(f"max_weight_clamp must be at least 1, not {max_weight_clamp}")
        if class_residuals is not None and not all(0 <= residual <= 1 for residual in class_residuals):
            raise ValueError(f"class_residuals must lie in [0, 1], not {list(class_residuals)}")
        if min(gains) <= 0:
            raise ValueError(f"gains must be positive, not {list(gains)}")
        if gaussian_sigma <= 0:
            raise ValueError(f"gaussian_sigma must be positive, not {gaussian_sigma}")
        for value, known in (
            (parameterisation, ("sigmoid", "centered")),
            (render_method, ("gaussian", "bilinear", "direct", "distance_weighted")),
            (modulation_type, ("element_wise", "channel_wise", "adaptive")),
            (form, ("convex", "additive")),
        ):
            if value not in known:
                raise ValueError(f"{value!r} is none of {', '.join(known)}")
        self.register_buffer("pc_range", torch.tensor(pc_range, dtype=torch.get_default_dtype()), persistent=False)
        self.parameterisation = parameterisation
        self.render_method = render_method
        self.gaussian_sigma = gaussian_sigma
        self.min_weight_threshold = min_weight_threshold
        self.max_weight_clamp = max_weight_clamp
        self.modulation_type = modulation_type
        self.residual_weight = residual_weight
        self.form = form
        self.router = Router(channels, window_sizes, num_heads)
        self.lidar_gate = nn.Parameter(torch.zeros(())) if gate else None
        self.camera_gate = nn.Parameter(torch.zeros(())) if gate else None
        if parameterisation == "sigmoid":
            nn.init.constant_(self.router.logits.bias, SIGMOID_BIAS)
        elif gate:
            # A zero gate over zero logits would hold each other's gradient at zero for ever.
            nn.init.zeros_(self.router.logits.bias)
        else:
            nn.init.zeros_(self.router.logits.weight)
            nn.init.zeros_(self.router.logits.bias)
        self.balanced = gains == (1.0, 1.0)
        self.register_buffer("gains", torch.tensor(gains, dtype=torch.get_default_dtype()), persistent=False)
        self.class_residual = None if class_residuals is None else ClassResidual(channels, class_residuals)

    def forward(
        self,
        query_embed: Tensor,
        reference_points: Tensor,
        bev: Tensor | None,
        images: Tensor | None,
        lidar2img: Tensor | None = None,
        image_size: tuple[int, int] | None = None,
        bev_position: Tensor | None = None,
        image_position: Tensor | None = None,
    ) -> AQROutput:
        """Route, render, modulate.

        Pass the detector's real queries only. Denoising queries sit on noised ground truth: rendering them would
        write the answer into the features.

        Args:
            query_embed: [B, Q, C].
            reference_points: [B, Q, 3] in [0, 1]³ of pc_range.
            bev: [B, C, Hb, Wb], rows along y, columns along x; None without LiDAR.
            images: [B, V, C, Hi, Wi]; None (or V = 0) without cameras.
            lidar2img: [B, V, 4, 4] LiDAR frame (m) to pixels of an image of image_size; needed with images.
            image_size: height and width, in pixels, of the images that the maps cover; needed with images.
            bev_position: position embedding added to the BEV features for routing, [Hb, Wb, C] or [B, Hb, Wb, C].
            image_position: likewise for the image features, [B, V, Hi, Wi, C].

        Returns:
            AQROutput.

        Raises:
            ValueError: if shapes do not belong together.
        """
        if images is not None and images.shape[1] == 0:
            images = None
        bev_view, image_view = self._views(
            query_embed, reference_points, bev, images, lidar2img, image_size, bev_position, image_position
        )
        state = self.router.state(query_embed, bev_view, image_view)
        on_bev = None if bev_view is None else bev_view[1]
        on_images = None if image_view is None else image_view[1]

        logits = self.router.read(state)
        class_logits = None if self.class_residual is None else self.class_residual(state)

        with torch.autocast(query_embed.device.type, enabled=False):
            signals = self._signals(logits.to(self.pc_range.dtype))
            bev_map = None if on_bev is None else self._map(signals[..., 0], on_bev)
            image_maps = None if on_images is None else self._map(signals[..., 1], on_images)
            weights = signals.exp() if self.parameterisation == "centered" else signals
            bev_residual = None if on_bev is None else self._residual_map(class_logits, on_bev)
            image_residuals = None if on_images is None else self._residual_map(class_logits, on_images)
            return AQROutput(
                bev=None
                if bev is None or bev_map is None
                else self._scale(bev[:, None], bev_map, self.lidar_gate, bev_residual).squeeze(1),
                images=None
                if images is None or image_maps is None
                else self._scale(images, image_maps, self.camera_gate, image_residuals),
                lidar_weights=weights[..., 0],
                camera_weights=weights[..., 1],
                bev_map=None if bev_map is None else bev_map.squeeze(1),
                image_maps=image_maps,
                visible=None if on_images is None else on_images.visible,
                max_weight_clamp=self.max_weight_clamp,
                class_logits=class_logits,
                bev_residual=None if bev_residual is None else bev_residual.squeeze(1),
                image_residuals=image_residuals,
            )

    def _views(
        self,
        query_embed: Tensor,
        reference_points: Tensor,
        bev: Tensor | None,
        images: Tensor | None,
        lidar2img: Tensor | None,
        image_size: tuple[int, int] | None,
        bev_position: Tensor | None,
        image_position: Tensor | None,
    ) -> tuple[View | None, View | None]:
        """What the router sees in the BEV map and in the images. Arguments as for `forward`, images with V > 0."""
        _check_shapes(query_embed, reference_points, bev, images, lidar2img, image_size)
        bev_view, image_view = None, None
        with torch.autocast(query_embed.device.type, enabled=False):
            points = reference_points.to(self.pc_range.dtype)
            if bev is not None:
                sites = bev_sites(points, (bev.shape[2], bev.shape[3]))
                bev_view = _tokens(bev[:, None], bev_position), sites
            if images is not None and lidar2img is not None and image_size is not None:
                size = (images.shape[3], images.shape[4])
                sites = image_sites(points, lidar2img.to(points.dtype), self.pc_range, image_size, size)
                image_view = _tokens(images, image_position), sites
        return bev_view, image_view

    def _signals(self, logits: Tensor) -> Tensor:
        """What is splatted: w for `sigmoid`, g = ln w for `centered`."""
        if self.parameterisation == "centered":
            bound = math.log(self.max_weight_clamp)
            signals = logits.tanh() * bound
            return signals if self.balanced else (signals + self.gains.log()).clamp(-bound, bound)
        return logits.sigmoid() if self.balanced else logits.sigmoid() * self.gains

    def _residual_map(self, class_logits: Tensor | None, sites: Sites) -> Tensor | None:
        if self.class_residual is None or class_logits is None:
            return None
        offset, sureness = self.class_residual.ask(class_logits, self.residual_weight)
        return residual_map(offset, sureness, sites, self.render_method, self.gaussian_sigma, self.residual_weight)

    def _map(self, signal: Tensor, sites: Sites) -> Tensor:
        spread = signal[:, None].expand_as(sites.visible)
        if self.parameterisation == "centered":
            return centered_map(spread, sites, self.render_method, self.gaussian_sigma)
        return sigmoid_map(
            spread, sites, self.render_method, self.gaussian_sigma, self.min_weight_threshold, self.max_weight_clamp
        )

    def _scale(self, features: Tensor, weight_map: Tensor, gate: Tensor | None, residual: Tensor | None) -> Tensor:
        openness = None if gate is None else gate.tanh()
        kept = self.residual_weight if residual is None else residual
        return modulate(features, weight_map, kept, self.form, self.modulation_type, openness)


def _check_shapes(
    query_embed: Tensor,
    reference_points: Tensor,
    bev: Tensor | None,
    images: Tensor | None,
    lidar2img: Tensor | None,
    image_size: tuple[int, int] | None,
) -> None:
    batch, count, channels = query_embed.shape
    if reference_points.shape != (batch, count, 3):
        raise ValueError(f"reference_points must be {[batch, count, 3]}, not {list(reference_points.shape)}")
    if bev is not None and (bev.dim() != 4 or bev.shape[:2] != (batch, channels)):
        raise ValueError(f"bev must be [{batch}, {channels}, Hb, Wb], not {list(bev.shape)}")
    if images is not None:
        if images.dim() != 5 or (images.shape[0], images.shape[2]) != (batch, channels):
            raise ValueError(f"images must be [{batch}, V, {channels}, Hi, Wi], not {list(images.shape)}")
        if lidar2img is None or image_size is None:
            raise ValueError("images need lidar2img and image_size")
        if lidar2img.shape != (batch, images.shape[1], 4, 4):
            raise ValueError(f"lidar2img must be {[batch, images.shape[1], 4, 4]}, not {list(lidar2img.shape)}")


def _tokens(features: Tensor, position: Tensor | None) -> Tensor:
    """[B, V, H, W, C] features plus positions from [B, V, C, H, W]."""
    tokens = features.permute(0, 1, 3, 4, 2)
    if position is None:
        return tokens
    if position.dim() == 4:
        position = position[:, None]
    return tokens + position.to(tokens.dtype)
