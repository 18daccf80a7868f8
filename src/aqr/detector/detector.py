"""The detector: encoders, AQR, decoder and heads put together."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aqr.batch import Batch
from aqr.config import Config
from aqr.detector.assignment import assign, cost_tables
from aqr.detector.coding import Detections, decode
from aqr.detector.denoising import NoisedQueries, attention_mask, noised_queries
from aqr.detector.depth import ImageDepth, object_depths
from aqr.detector.heatmap import HeatmapHead, bev_targets, heatmap_loss, image_targets
from aqr.detector.inputs import Inputs, Truth
from aqr.detector.lidar_encoder import LidarEncoder
from aqr.detector.losses import denoising_losses, divided, mean_over_ranks, set_losses, stacked
from aqr.detector.objects import Objects, padding, placed
from aqr.detector.parts import build_parts
from aqr.detector.position import BevEmbedding, inverse
from aqr.detector.solo import solo_log_weights, solo_losses, solo_mask, solo_parts
from aqr.detector.transfer import host_like, on_its_way
from aqr.detector.wrapping import Wrap, as_it_is
from aqr.errors import InputError
from aqr.modulation import AQRModulation, AQROutput, AttentionRouting


@dataclass(frozen=True)
class Predictions:
    """What the heads say after each of L decoder layers.

    Attributes:
        logits: [L, B, Q, 10] float32 class logits.
        codes: [L, B, Q, 10] float32 box codes, see `aqr.detector.coding`.
    """

    logits: Tensor
    codes: Tensor


@dataclass(frozen=True)
class DetectorOutput:
    """Everything that the losses, the decoding, the statistics and the pictures need from one forward pass.

    Attributes:
        queries: predictions of the real queries.
        denoising: predictions of the denoising queries, G · N of them (0 at inference).
        noised: where the denoising queries came from; None without them.
        inputs: what was computed with.
        objects: the ground truth as a table; None at inference.
        reference_points: [B, Q, 3] in [0, 1]³ of pc_range, real queries.
        aqr: what AQR did; None where it is off.
        bev: [B, C, Hb, Wb] the BEV map before modulation; None without LiDAR.
        images: [B, V, C, Hi, Wi] the image maps before modulation; None without a camera.
        solo: [2, B, Q, 10] predictions of queries that read LiDAR alone and cameras alone, after the last layer; None
            where there are no such queries, or at inference.
        bev_heatmap: [B, 10, Hb, Wb] auxiliary logits; None where there is no such head, or at inference.
        image_heatmap: [B · V, 10, Hi, Wi] likewise.
        depth: [B, V, D, Hi, Wi] logits of the depths of image cells; None where there is no such head, or no camera.
        finite: scalar bool, false where a point of the batch was not finite.
    """

    queries: Predictions
    denoising: Predictions
    noised: NoisedQueries | None
    inputs: Inputs
    objects: Objects | None
    reference_points: Tensor
    aqr: AQROutput | None
    bev: Tensor | None
    images: Tensor | None
    solo: Predictions | None
    bev_heatmap: Tensor | None
    image_heatmap: Tensor | None
    depth: Tensor | None
    finite: Tensor


class Detector(nn.Module):
    """A CMT-style LiDAR-camera detector (arXiv 2301.01283), with or without AQR.

    Queries with learned reference points read the tokens of all sensors at once: BEV cells and image cells stand in
    one sequence, and a query finds what concerns it because positions of queries and tokens are embedded alike. A
    sensor is absent where the config leaves it out; cameras are absent also where a batch brings none (V = 0). A
    sample without points has the BEV map of an empty cloud.

    With the same seed, a detector with AQR and one without start from the same weights: AQR is built last and draws
    from a random stream of its own.

    Args:
        config: sensors, detector and aqr are read.

    Raises:
        InputError: where the image backbone cannot be built.
    """

    pc_range: Tensor
    code_weights: Tensor
    center_range: Tensor | None

    def __init__(self, config: Config) -> None:
        super().__init__()
        settings = config.detector
        dim, pc_range = settings.hidden_dim, settings.pc_range
        self.settings = settings
        self._compiled = False
        self._moving = config.aqr.schedule.moves or config.aqr.controller.enabled
        self._wrap: Wrap = as_it_is
        self.register_buffer("pc_range", torch.tensor(pc_range), persistent=False)
        self.register_buffer("code_weights", torch.tensor(settings.loss.code_weights), persistent=False)
        parts = build_parts(config)
        self.lidar_encoder = parts.lidar_encoder
        self.image_encoder = parts.image_encoder
        self.reference_points = nn.Parameter(parts.reference_points)
        self.position = parts.position
        self.decoder = parts.decoder
        self.heads = parts.heads
        self.register_buffer("center_range", parts.center_range, persistent=False)
        dense = settings.loss.heatmap > 0
        self.bev_heatmap = HeatmapHead(dim) if dense and self.lidar_encoder is not None else None
        self.image_heatmap = HeatmapHead(dim) if dense and self.image_encoder is not None else None
        bins = settings.image.depth_bins
        self.depth = ImageDepth(dim, bins, pc_range) if bins and self.image_encoder is not None else None
        self.aqr: AQRModulation | None = None
        if config.aqr.enabled and config.aqr.target == "attention":
            with torch.random.fork_rng(devices=[]):
                self.aqr = AttentionRouting(
                    dim,
                    pc_range,
                    layers=settings.num_layers if config.aqr.router.per_layer else 1,
                    window_sizes=config.aqr.router.window_sizes,
                    num_heads=config.aqr.router.num_heads,
                    max_weight_clamp=config.aqr.renderer.max_weight_clamp,
                    context=config.aqr.router.context,
                )
        elif config.aqr.enabled:
            with torch.random.fork_rng(devices=[]):
                self.aqr = AQRModulation(
                    dim,
                    pc_range,
                    window_sizes=config.aqr.router.window_sizes,
                    num_heads=config.aqr.router.num_heads,
                    parameterisation=config.aqr.parameterisation,
                    render_method=config.aqr.renderer.render_method,
                    gaussian_sigma=config.aqr.renderer.gaussian_sigma,
                    min_weight_threshold=config.aqr.renderer.min_weight_threshold,
                    max_weight_clamp=config.aqr.renderer.max_weight_clamp,
                    modulation_type=config.aqr.modulator.modulation_type,
                    residual_weight=config.aqr.modulator.default_residual,
                    form=config.aqr.modulator.form,
                    gate=config.aqr.modulator.gate,
                    gains=(config.aqr.renderer.lidar_gain, config.aqr.renderer.camera_gain),
                    class_residuals=config.aqr.modulator.class_residuals,
                )

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> DetectorOutput:
        """Detect; in training, with boxes in the batch, put right noised boxes as well.

        Args:
            batch: B samples.
            generator: source of the denoising noise.

        Returns:
            DetectorOutput.
        """
        # Attention masks whose length is always the same modulo 8 need one compiled form.
        groups = self.settings.denoising.groups if self.training else None
        return self.run(Inputs.of(batch, groups, generator, 8 if self._compiled else 1))

    def run(self, inputs: Inputs) -> DetectorOutput:
        """What `forward` does, from tensors alone: no shape depends on what they hold, and nothing waits for a GPU.

        Args:
            inputs: B samples; with their truth in training.
        """
        size, image_size = len(inputs), inputs.image_size
        bev = images = None
        if self.lidar_encoder is not None:
            points, sample = self._varies(inputs.points, 0), self._varies(inputs.sample, 0)
            bev = self.lidar_encoder(points, sample, size)
        if self.image_encoder is not None and inputs.images.shape[1]:
            images = self.image_encoder(inputs.images)
        lidar2img = inputs.lidar2img if images is not None else inputs.lidar2img[:, :0]

        real = self.reference_points.clamp(0, 1).expand(size, -1, -1)
        query_embed = self.position(real, lidar2img, image_size)
        bev_position = None if bev is None else self.position.bev.grid((bev.shape[2], bev.shape[3]))
        image_position = depth = None
        if images is not None and self.position.ray is not None:
            img2lidar = self._wrap(inverse)(lidar2img)
            image_position = self.position.ray.grid((images.shape[3], images.shape[4]), image_size, img2lidar)
            if self.depth is not None and isinstance(self.position.bev, BevEmbedding):
                depth = self.depth(images, image_position)
                image_position = image_position + self.depth.places(depth, image_size, img2lidar, self.position.bev)

        routed = None
        seen_bev, seen_images = bev, images
        if self.aqr is not None:
            routed = self.aqr(query_embed, real, bev, images, lidar2img, image_size, bev_position, image_position)
            seen_bev, seen_images = routed.bev, routed.images

        objects, noised = self._learned_from(inputs.truth)
        references, mask, count = real, None, real.shape[1]
        if noised is not None:
            references = torch.cat([real, noised.reference_points], 1)
            places = self._varies(noised.reference_points, 1)
            query_embed = torch.cat([query_embed, self.position(places, lidar2img, image_size)], 1)
            mask = attention_mask(count, noised, self._wrap)
        log_weights = None if routed is None else routed.log_weights
        solo = self.training and self.settings.loss.solo > 0 and bev is not None and images is not None
        if solo:
            mask = solo_mask(mask, references.shape[1], count, references.device)
            log_weights = solo_log_weights(log_weights, real, references.shape[1])
            references = torch.cat([references, real, real], 1)
            query_embed = torch.cat([query_embed, query_embed[:, :count], query_embed[:, :count]], 1)
        elif log_weights is not None:
            log_weights = F.pad(log_weights, (0, 0, 0, references.shape[1] - count))

        tokens = []
        if seen_bev is not None and bev_position is not None:
            tokens.append((seen_bev.permute(0, 2, 3, 1), bev_position))
        if seen_images is not None and image_position is not None:
            tokens.append((seen_images.permute(0, 1, 3, 4, 2), image_position))
        if log_weights is not None:
            log_weights = log_weights[..., int(seen_bev is None) : 1 + int(seen_images is not None)]
        if mask is not None:
            mask = self._varies(mask, mask.dim() - 2, mask.dim() - 1)
        states = self.decoder.read(self._varies(query_embed, 1), tokens, mask, log_weights)
        logits, codes = self.heads(self._varies(states, 2), self._varies(references, 1))
        alone = None
        if solo:
            alone = Predictions(*(solo_parts(found, count) for found in (logits, codes)))
            logits, codes = logits[:, :, : -2 * count], codes[:, :, : -2 * count]
        return DetectorOutput(
            queries=Predictions(logits[:, :, :count], codes[:, :, :count]),
            denoising=Predictions(logits[:, :, count:], codes[:, :, count:]),
            noised=noised,
            inputs=inputs,
            objects=objects,
            reference_points=real,
            aqr=routed,
            bev=bev,
            images=images,
            solo=alone,
            bev_heatmap=self.bev_heatmap(bev) if self.training and self.bev_heatmap and bev is not None else None,
            image_heatmap=self.image_heatmap(images.flatten(0, 1))
            if self.training and self.image_heatmap and images is not None
            else None,
            depth=depth,
            finite=inputs.points.isfinite().all(),
        )

    def train_only(self, prefixes: Sequence[str]) -> None:
        """Train what lies under some names and leave all else as it is, running statistics of batch norms included.

        Args:
            prefixes: of parameter names, whole parts of them: `aqr`, or `decoder.layers`.

        Raises:
            InputError: where no parameter lies under a prefix.
        """
        names = [name for name, _ in self.named_parameters()]
        for prefix in prefixes:
            if not any(lies_under(name, prefix) for name in names):
                parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
                raise InputError(f"train.only: no parameter of this detector lies under {prefix!r}; it has {parts}")
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(any(lies_under(name, prefix) for prefix in prefixes))
        self.train(self.training)

    def train(self, mode: bool = True) -> Detector:
        """As in PyTorch, but parts none of whose parameters is trained stay in evaluation."""
        super().train(mode)
        for part in [*self.modules()][1:] if mode else ():
            trained = [p.requires_grad for p in part.parameters()]
            if trained and not any(trained):
                part.eval()
        return self

    @property
    def has_fixed_shapes(self) -> bool:
        """Whether a CUDA graph can hold a training step: no shape depends on the points, no setting of AQR moves."""
        return not self._moving and not self.has_sparse_convolutions

    @property
    def has_sparse_convolutions(self) -> bool:
        """Whether the LiDAR encoder is CMT's, whose shapes depend on the points."""
        return self.lidar_encoder is not None and not isinstance(self.lidar_encoder, LidarEncoder)

    def compile_parts(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compile encoders, position embeddings, decoder, heads and losses in place with `torch.compile`.

        Depths of image cells are computed as they are.
        The first steps then take a minute or two, later ones less time each. What a batch leaves open (how many points
        and boxes it has) stays open in the compiled code. Names and values of parameters stay as they are.

        Args:
            backend: of `torch.compile`.
        """
        self._compiled = True
        position = self.position
        parts: list[nn.Module | None] = [
            self.lidar_encoder,
            self.image_encoder,
            position,
            self.decoder,
            self.heads,
            position.bev,
            position.ray,
        ]
        if self.has_sparse_convolutions:
            parts.remove(self.lidar_encoder)
        # A number that changes from step to step would be compiled anew each time.
        if not self._moving:
            parts.append(self.aqr)
        for part in parts:
            if part is not None:
                part.compile(backend=backend)
        self._wrap = functools.cache(functools.partial(torch.compile, dynamic=True, backend=backend))

    def _varies(self, tensor: Tensor, *dims: int) -> Tensor:
        """Tell the compiler, where there is one, which dimensions differ from batch to batch."""
        if self._compiled and self.training:
            for dim in dims:
                torch._dynamo.maybe_mark_dynamic(tensor, dim)
        return tensor

    def _learned_from(self, truth: Truth | None) -> tuple[Objects | None, NoisedQueries | None]:
        if truth is None or not self.training:
            return None, None
        objects = Objects.of(truth.boxes, truth.labels, truth.rows)
        if truth.noise is None:
            return objects, None
        noise = placed(truth.noise, truth.rows, 0.0)
        return objects, noised_queries(objects, noise, self.pc_range, self.settings.denoising, self._wrap)

    def losses(self, output: DetectorOutput, batch: Batch) -> dict[str, Tensor]:
        """Weighted losses, whose sum is to be minimised; NaN where the batch held a point that is not finite.

        Args:
            output: of `forward`; in evaluation nothing is said of denoising queries.
            batch: the same batch.

        Returns:
            Scalars: loss_cls, loss_bbox of the last layer and d0.loss_cls … of the others; with denoising dn_loss_cls,
            dn_loss_bbox, d0.dn_loss_cls …; with heatmap heads loss_heatmap, loss_image_heatmap; with depths of image
            cells loss_depth; with residuals by class loss_router_cls; with queries that read one sensor alone
            lidar.loss_cls, lidar.loss_bbox and the same for camera.
        """
        if output.objects is None:
            rows = padding(batch.box_counts).to(batch.device, non_blocking=True)
            output = dataclasses.replace(output, objects=Objects.of(batch.boxes, batch.labels, rows))
        costs = self.costs(output)
        arrived = on_its_way(costs, tables := host_like(costs))
        # While the costs are on their way and the objects are given out, the GPU has the other losses to do.
        sums, counts = self.losses_aside(output)
        counts = mean_over_ranks(counts)
        arrived()
        matched = assign(tables, batch.box_counts).to(batch.device, non_blocking=True)
        return self.losses_of(output, sums, counts, matched)

    def costs(self, output: DetectorOutput) -> Tensor:
        """Costs of giving objects to queries: [L, B, N, Q], or [L + 2, B, N, Q] where two groups read one sensor alone.

        Args:
            output: of `run` in training, as for the two methods below. `losses` is these three one after the other.
        """
        assert output.objects is not None
        logits, codes = output.queries.logits, output.queries.codes
        if output.solo is not None:
            logits, codes = torch.cat([logits, output.solo.logits]), torch.cat([codes, output.solo.codes])
        with torch.autocast(logits.device.type, enabled=False):
            return cost_tables(logits, codes, output.objects, self.settings.loss, self.code_weights, self._wrap)

    def losses_aside(self, output: DetectorOutput) -> tuple[dict[str, Tensor], Tensor]:
        """Weighted sums of the losses that need no assignment, and on this rank the counts that divide all losses, [6].

        Counts are in the order of `aqr.detector.losses.COUNTS`.
        """
        loss, inputs, objects = self.settings.loss, output.inputs, output.objects
        assert objects is not None
        queries = output.reference_points.shape[1]
        counts = {"matched": objects.present.sum(1).clamp(max=queries).sum()}
        sums: dict[str, Tensor] = {}
        with torch.autocast(inputs.points.device.type, enabled=False):
            if output.noised is not None:
                found, noised = output.denoising, output.noised
                sums |= denoising_losses(found.logits, found.codes, noised, loss, self.code_weights, self._wrap)
                counts |= {"near": noised.near.sum(), "present": noised.present.sum()}
            if output.bev_heatmap is not None:
                rows, columns = output.bev_heatmap.shape[-2:]
                targets = bev_targets(objects, self.pc_range, (rows, columns))
                missed, counts["centers"] = heatmap_loss(output.bev_heatmap, targets)
                sums["loss_heatmap"] = loss.heatmap * missed
            if output.image_heatmap is not None:
                rows, columns = output.image_heatmap.shape[-2:]
                targets = image_targets(objects, inputs.lidar2img, inputs.image_size, (rows, columns))
                missed, counts["image_centers"] = heatmap_loss(output.image_heatmap, targets)
                sums["loss_image_heatmap"] = loss.heatmap * missed
            if self.depth is not None and output.depth is not None:
                rows, columns = output.depth.shape[-2:]
                depths = object_depths(objects, inputs.lidar2img, inputs.image_size, (rows, columns))
                missed, counts["cells"] = self.depth.loss(output.depth, depths)
                sums["loss_depth"] = loss.depth * missed
            return sums, stacked(counts, inputs.points.device)

    def losses_of(
        self, output: DetectorOutput, sums: dict[str, Tensor], counts: Tensor, matched: Tensor
    ) -> dict[str, Tensor]:
        """All losses.

        Args:
            output: of `run`.
            sums: of `losses_aside`.
            counts: likewise, averaged over ranks.
            matched: [L or L + 2, B, N] of `assign`, from the tables of `costs`.

        Returns:
            As `losses`.
        """
        assert output.objects is not None
        loss, objects, found = self.settings.loss, output.objects, output.queries
        estimate = None if output.aqr is None else output.aqr.class_logits
        layers = len(found.logits)
        with torch.autocast(matched.device.type, enabled=False):
            everything = set_losses(
                found.logits, found.codes, objects, matched[:layers], loss, self.code_weights, estimate, self._wrap
            )
            everything |= sums
            if output.solo is not None:
                alone = output.solo
                everything |= solo_losses(alone.logits, alone.codes, objects, matched[layers:], loss, self.code_weights)
            losses = divided(everything, counts)
            losses["loss_cls"] = losses["loss_cls"] * torch.where(output.finite, 1.0, float("nan"))
        return losses

    def decode(self, output: DetectorOutput) -> list[Detections]:
        """The boxes of the last layer's real queries.

        Args:
            output: of `forward`.

        Returns:
            One Detections per sample.
        """
        last = output.queries
        return decode(last.logits[-1], last.codes[-1], self.pc_range, self.settings.max_detections, self.center_range)


def lies_under(name: str, prefix: str) -> bool:
    """Whether a parameter's dotted name is the prefix or begins with it and a dot."""
    return name == prefix or name.startswith(f"{prefix}.")
