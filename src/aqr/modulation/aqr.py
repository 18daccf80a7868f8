"""AQRModulation: route, render and modulate in one module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from aqr.modulation.checks import can_look, check_settings, check_shapes, check_values
from aqr.modulation.modulate import Form, ModulationType, modulate
from aqr.modulation.render import RenderMethod, centered_map, sigmoid_map
from aqr.modulation.residual import ClassResidual, residual_map
from aqr.modulation.route import Router
from aqr.modulation.sites import Sites, bev_sites, image_sites

Parameterisation = Literal["sigmoid", "centered"]

View = tuple[Tensor, Sites]
"""Tokens [B, V, H, W, C] of a sensor's maps, and where the queries lie in them."""

Computed = tuple[dict[str, Any], Tensor | None]
"""Fields of `AQROutput`, and the modulated image features [B·V, C, Hi, Wi] in place of None under `images`."""

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
        lidar_gate: a = tanh(α) in (−1, 1), a scalar; None without a gate.
        camera_gate: likewise.
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
    lidar_gate: Tensor | None = None
    camera_gate: Tensor | None = None


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
    looked = False
    """Whether the values of a first call were checked; see `aqr.modulation.checks.check_values`."""
    _compiled: Callable[..., Computed] | None = None

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
        check_settings(
            channels=channels,
            pc_range=pc_range,
            window_sizes=window_sizes,
            num_heads=num_heads,
            gaussian_sigma=gaussian_sigma,
            min_weight_threshold=min_weight_threshold,
            max_weight_clamp=max_weight_clamp,
            residual_weight=residual_weight,
            gate=gate,
            gains=gains,
            class_residuals=class_residuals,
            choices=[
                (parameterisation, get_args(Parameterisation)),
                (render_method, get_args(RenderMethod)),
                (modulation_type, get_args(ModulationType)),
                (form, get_args(Form)),
            ],
        )
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
        self.balanced = tuple(gains) == (1.0, 1.0)
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
            ValueError: if types, shapes or dtypes do not belong together; and, where a module is called for the first
                time, if reference points or matrices are not finite or most points lie far outside [0, 1]³. That first
                look at values waits for the device, and is left out where the call is compiled, exported or captured.
        """
        compute = self._compiled or self._compute
        fields, flat = compute(
            query_embed, reference_points, bev, images, lidar2img, image_size, bev_position, image_position
        )
        if flat is not None and images is not None:
            fields["images"] = flat.view(*images.shape[:2], *flat.shape[1:])
        return AQROutput(**fields)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As `nn.Module.compile`.

        Image features leave the compiled code in four dimensions: before PyTorch 2.13 it copies the gradient of five
        that are not contiguous.
        """
        self._compiled = torch.compile(self._compute, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        # Compiled code reads the weights of the module that it was made for.
        state.pop("_compiled", None)
        return state

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
        """What is compiled. Arguments as for `forward`."""
        bev_view, image_view = self._views(
            query_embed, reference_points, bev, images, lidar2img, image_size, bev_position, image_position
        )
        state = self.router.state(query_embed, bev_view, image_view)
        if image_view is None:
            images = None
        on_bev = None if bev_view is None else bev_view[1]
        on_images = None if image_view is None else image_view[1]

        logits = self.router.read(state)
        class_logits = None if self.class_residual is None else self.class_residual(state)

        with torch.autocast(query_embed.device.type, enabled=False):
            signals = self._signals(logits.to(self.pc_range.dtype))
            bev_map = None if on_bev is None else self._map(signals[..., 0], on_bev)
            image_maps = None if on_images is None else self._map(signals[..., 1], on_images)
            weights = signals.exp() if self.parameterisation == "centered" else signals
            lidar_gate = None if on_bev is None or self.lidar_gate is None else self.lidar_gate.tanh()
            camera_gate = None if on_images is None or self.camera_gate is None else self.camera_gate.tanh()
            bev_residual = None if on_bev is None else self._residual_map(class_logits, on_bev)
            image_residuals = None if on_images is None else self._residual_map(class_logits, on_images)
            fields = {
                "bev": None if bev is None or bev_map is None else self._scale(bev, bev_map, lidar_gate, bev_residual),
                "images": None,
                "lidar_weights": weights[..., 0],
                "camera_weights": weights[..., 1],
                "bev_map": None if bev_map is None else bev_map.squeeze(1),
                "image_maps": image_maps,
                "visible": None if on_images is None else on_images.visible,
                "max_weight_clamp": self.max_weight_clamp,
                "class_logits": class_logits,
                "bev_residual": None if bev_residual is None else bev_residual.squeeze(1),
                "image_residuals": image_residuals,
                "lidar_gate": lidar_gate,
                "camera_gate": camera_gate,
            }
            if images is None or image_maps is None:
                return fields, None
            return fields, self._scale(images.flatten(0, 1), image_maps, camera_gate, image_residuals)

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
        """What the router sees in the BEV map and in the images. Arguments as for `forward`."""
        check_shapes(
            self.router.hidden.weight,
            query_embed,
            reference_points,
            bev,
            images,
            lidar2img,
            image_size,
            bev_position,
            image_position,
        )
        bev_view, image_view = None, None
        with torch.autocast(query_embed.device.type, enabled=False):
            points = reference_points.to(self.pc_range.dtype)
            if bev is not None:
                sites = bev_sites(points, (bev.shape[2], bev.shape[3]))
                bev_view = _tokens(bev[:, None], bev_position), sites
            if images is not None and images.shape[1] and lidar2img is not None and image_size is not None:
                size = (images.shape[3], images.shape[4])
                sites = image_sites(points, lidar2img.to(points.dtype), self.pc_range, image_size, size)
                image_view = _tokens(images, image_position), sites
        # A compiler must not read `looked`, whose change would make it compile again.
        if not torch.compiler.is_compiling() and not self.looked and can_look(reference_points):
            check_values(
                reference_points,
                None if image_view is None else lidar2img,
                None if image_view is None else image_view[1].visible,
            )
            self.looked = True
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
        """Modulated features [B·V, C, H, W]; maps are [B, V, H, W]."""
        kept = self.residual_weight if residual is None else residual.flatten(0, 1)[:, None]
        weights = weight_map.flatten(0, 1)[:, None]
        return modulate(features[:, None], weights, kept, self.form, self.modulation_type, gate).squeeze(1)


def _tokens(features: Tensor, position: Tensor | None) -> Tensor:
    """[B, V, H, W, C] features plus positions from [B, V, C, H, W]."""
    tokens = features.permute(0, 1, 3, 4, 2)
    if position is None:
        return tokens
    if position.dim() == 4:
        position = position[:, None]
    return tokens + position.to(tokens.dtype)
