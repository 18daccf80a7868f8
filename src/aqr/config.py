"""The schema of a config file.

A config is YAML. Everything has a default, a file states only what differs, an unknown key is an error, and
`section.key=value` overrides from the command line come last. Settings of AQR carry the names that people know
from earlier AQR experiments.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from aqr.data.failures.catalogue import KIND_OF
from aqr.errors import InputError
from aqr.taxonomy import CAMERAS, CLASSES

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Sensors(Section):
    """What the detector sees, in training and in inference."""

    lidar: bool = True
    cameras: tuple[str, ...] = CAMERAS

    @model_validator(mode="after")
    def _something(self) -> Sensors:
        if not self.lidar and not self.cameras:
            raise ValueError("a detector needs LiDAR or at least one camera")
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError("a camera is named twice")
        return self


class ImageAugmentation(Section):
    """Sizes relative to the source image; used in training only, apart from `size`.

    At inference the image is resized to cover `size` and cropped at the top (sky), centred left to right.
    """

    size: tuple[Count, Count] = (320, 800)
    """Height and width that the network sees, multiples of 32."""
    resize: tuple[Positive, Positive] = (0.94, 1.25)
    """Range of the random scale, relative to the scale used at inference."""
    flip: bool = True

    @model_validator(mode="after")
    def _sizes(self) -> ImageAugmentation:
        if self.size[0] % 32 or self.size[1] % 32:
            raise ValueError(f"image size {list(self.size)} must be multiples of 32")
        if self.resize[0] > self.resize[1]:
            raise ValueError(f"resize range {list(self.resize)} runs backwards")
        return self


class BevAugmentation(Section):
    """Global augmentation of points and boxes; `lidar2img` follows."""

    rotation: NonNegative = 0.785
    """Largest angle, radians, drawn uniformly from [-rotation, rotation]."""
    scale: tuple[Positive, Positive] = (0.9, 1.1)
    translation: NonNegative = 0.5
    """Standard deviation per axis, metres."""
    flip_x: bool = True
    flip_y: bool = True

    @model_validator(mode="after")
    def _scale(self) -> BevAugmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale range {list(self.scale)} runs backwards")
        return self


class FailureShare(Section):
    """How often training shows one failure."""

    name: str
    """One of `aqr.data.failures.catalogue.KINDS`."""
    probability: Fraction
    """Share of the samples."""
    severity: tuple[Annotated[int, Field(ge=1, le=3)], Annotated[int, Field(ge=1, le=3)]] = (1, 3)
    """Lowest and highest, drawn uniformly; total loss (`lidar_drop`) is 3."""

    @model_validator(mode="after")
    def _known(self) -> FailureShare:
        if self.name not in KIND_OF:
            raise ValueError(f"there is no failure {self.name!r}; known: {', '.join(KIND_OF)}")
        low, high = self.severity
        severities = KIND_OF[self.name].severities
        if not any(low <= severity <= high for severity in severities):
            raise ValueError(f"{self.name} has no severity from {low} to {high}; it has {list(severities)}")
        return self


class Failures(Section):
    """What fails in training, off by default. A sample fails in one way at most: the probabilities add up."""

    lidar_dropout: Fraction = 0.0
    """Share of the samples shown without a LiDAR point."""
    camera_dropout: Fraction = 0.0
    """Share of the samples shown with black images only."""
    augmentation: tuple[FailureShare, ...] = ()

    @model_validator(mode="after")
    def _shares(self) -> Failures:
        total = self.lidar_dropout + self.camera_dropout + sum(entry.probability for entry in self.augmentation)
        if total > 1.0 + 1e-9:
            raise ValueError(f"the probabilities add up to {total:g}, but a sample fails in one way at most")
        return self


class SynthWorld(Section):
    """A world that is rendered while it is learned from, where `data.kind` is synth: the one that `aqr synth` writes
    with the same settings and `data.version`."""

    preset: Literal["tiny", "small", "full"] = "small"
    """Length of scenes, spacing of LiDAR sweeps, and size of the images as they would be on disk. Pictures are taken at
    the size and zoom that the network sees."""
    scenes: Count = 100
    """About one in five is for validation."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the world, whatever the run's."""
    weather: tuple[Literal["Clear day", "Cloudy day", "Day, rain", "Night", "Night, after rain", "Day, fog"], ...] = ()
    """Kinds of weather that occur; all if empty."""


class Data(Section):
    kind: Literal["nuscenes", "synth"] = "nuscenes"
    """Samples from the nuScenes-format folder `root`, or rendered as `synth` says, on the GPU where there is one."""
    synth: SynthWorld = SynthWorld()
    root: Path = Path("data/nuscenes")
    version: str = "v1.0-trainval"
    train_split: str = "train"
    val_split: str = "val"
    sweeps: Annotated[int, Field(ge=0, le=10)] = 10
    """Number of earlier LiDAR sweeps added to the keyframe; fewer are used where fewer exist."""
    image: ImageAugmentation = ImageAugmentation()
    bev: BevAugmentation = BevAugmentation()
    augment: bool = True
    failures: Failures = Failures()
    cbgs: bool = True
    """Class-balanced grouping and sampling (arXiv 1908.09492) of training samples."""
    batch_size: Count = 4
    """Per GPU."""
    workers: Annotated[int, Field(ge=0)] = 4


class LidarEncoder(Section):
    """Pillars (arXiv 1812.05784) and a SECOND-style BEV backbone with an FPN, in plain PyTorch."""

    pillars: tuple[Count, Count] = (512, 512)
    """Pillar grid, rows (y) and columns (x) over pc_range."""
    pillar_channels: Count = 64
    channels: tuple[Count, ...] = (64, 128, 256)
    blocks: tuple[Count, ...] = (3, 5, 5)
    strides: tuple[Count, ...] = (2, 2, 2)
    out_stride: Count = 4
    """Pillars per cell of the BEV map: with 4, 512 pillars give a 128 x 128 map."""

    @model_validator(mode="after")
    def _stages(self) -> LidarEncoder:
        if not 0 < len(self.channels) == len(self.blocks) == len(self.strides):
            raise ValueError("channels, blocks and strides must have one entry per stage, and one stage at least")
        for stride in accumulate(self.strides, mul):
            if stride % self.out_stride and self.out_stride % stride:
                raise ValueError(
                    f"a stage has {stride} pillars per cell (strides {list(self.strides)} up to it), which is neither "
                    f"a multiple nor a divisor of out_stride {self.out_stride}"
                )
            if any(n % stride for n in self.pillars):
                raise ValueError(
                    f"pillars {list(self.pillars)} must be multiples of all strides {list(self.strides)} together"
                )
        if any(n % self.out_stride for n in self.pillars):
            raise ValueError(f"pillars {list(self.pillars)} must be multiples of out_stride {self.out_stride}")
        return self

    @property
    def bev_size(self) -> tuple[int, int]:
        """Rows and columns of the BEV map."""
        return self.pillars[0] // self.out_stride, self.pillars[1] // self.out_stride


class ImageEncoder(Section):
    """A backbone from transformers and an FPN."""

    backbone: str = "resnet"
    """Model type of a transformers backbone (resnet, convnext, swin, dinov2, …), or `timm:NAME`."""
    pretrained: str | None = None
    """Hub name or folder of pretrained weights; None starts from random ones."""
    options: dict[str, Any] = {}
    """Fields of the backbone's transformers config, where it is not pretrained (`depths`, `hidden_sizes`, …)."""
    freeze_norm: bool = False
    """Keep batch-norm statistics as loaded; sensible with pretrained weights and small batches."""
    out_stride: Literal[8, 16] = 16
    """Pixels per cell of the image map."""
    depth_bins: Annotated[int, Field(ge=0)] = 0
    """Bins in which the depth of the object in every cell is told, from 1 m to the corner of pc_range; the cell's
    position then says where that is (arXiv 2211.14710). 0 builds no such head, and a cell stands for its whole ray."""


class CmtEncoders(Section):
    """The encoders of a CMT checkpoint (arXiv 2301.01283), in place of `lidar` and `image` where `style` is cmt."""

    voxel_size: tuple[Positive, Positive, Positive] = (0.1, 0.1, 0.2)
    """Metres along x, y and z."""
    sparse_shape: tuple[Count, Count, Count] = (41, 1024, 1024)
    """Voxels along z, y and x, counted from the lower corner of pc_range; those beyond are dropped. The BEV map has a
    cell per 8 x 8 of them. CMT's own setting for 0.1 m leaves out the last 5.6 m of the 108 m along x and y."""
    max_points: Count = 10
    """Points of a voxel that count, the first ones; their mean describes the voxel."""
    max_voxels: tuple[Count, Count] = (120_000, 160_000)
    """Voxels of a sample that count, the first ones, in training and in inference."""
    image_backbone: Literal["resnet50", "resnet50-caffe", "vovnet99"] = "resnet50"
    """`resnet50-caffe` has the stride of a bottleneck in its first convolution, not in its second."""
    sparse_backend: Literal["torch", "spconv"] = "torch"
    """What computes the sparse 3D convolutions; spconv is an extra, faster on a GPU."""
    center_range: tuple[float, float, float, float, float, float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    """Boxes whose centre lies outside are left out."""
    boxes: Literal["mmdet3d-1", "mmdet3d-0"] = "mmdet3d-1"
    """What the weights call width and heading: mmdet3d changed it with its version 1.0."""


class Denoising(Section):
    """Denoising queries (arXiv 2203.01305, as used by CMT)."""

    groups: Annotated[int, Field(ge=0)] = 10
    """Copies of the ground truth; 0 turns denoising off."""
    noise_scale: NonNegative = 1.0
    """Largest offset of a noised centre, in half box sizes."""
    split: Fraction = 0.75
    """A copy displaced by more than this share of the largest offset is labelled background."""


class Loss(Section):
    cls: NonNegative = 2.0
    bbox: NonNegative = 0.25
    dn: NonNegative = 1.0
    """Weight of the denoising losses."""
    code_weights: tuple[NonNegative, ...] = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)
    """CMT's, for x, y, z, l, w, h, sin, cos, vx, vy."""
    router_cls: NonNegative = 0.5
    """Weight of the router's class loss, where aqr.modulator.residual_weight is by class."""
    solo: NonNegative = 0.0
    """Weight of the losses of two more copies of the queries, one of which reads LiDAR alone, the other cameras alone,
    so that the decoder learns on every sample what to do without a sensor; 0 makes no copies. In training only."""
    depth: NonNegative = 1.0
    """Weight of the depth loss of the image cells, where detector.image.depth_bins asks for depths."""
    heatmap: NonNegative = 0.0
    """Weight of the auxiliary centre heatmap on the BEV map (arXiv 2006.11275); 0 builds no heatmap head."""

    @model_validator(mode="after")
    def _ten(self) -> Loss:
        if len(self.code_weights) != 10:
            raise ValueError(f"code_weights needs 10 numbers, has {len(self.code_weights)}")
        return self


class DetectorConfig(Section):
    """A CMT-style detector (arXiv 2301.01283)."""

    style: Literal["aqr", "cmt"] = "aqr"
    """`cmt` computes what CMT computes, from weights that `aqr convert cmt` brought along."""
    pc_range: tuple[float, float, float, float, float, float] = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
    hidden_dim: Count = 256
    num_query: Count = 900
    num_layers: Count = 6
    num_heads: Count = 8
    feedforward_dim: Count = 1024
    dropout: Fraction = 0.1
    reference_init: Literal["uniform", "grid"] = "uniform"
    """Start of the learned reference points: uniform in pc_range, or on a regular BEV grid at one height."""
    max_detections: Annotated[int, Field(ge=1, le=500)] = 300
    lidar: LidarEncoder = LidarEncoder()
    image: ImageEncoder = ImageEncoder()
    cmt: CmtEncoders = CmtEncoders()
    denoising: Denoising = Denoising()
    loss: Loss = Loss()

    @model_validator(mode="after")
    def _consistent(self) -> DetectorConfig:
        if any(low >= high for low, high in zip(self.pc_range[:3], self.pc_range[3:], strict=True)):
            raise ValueError(f"pc_range {list(self.pc_range)} is empty along an axis")
        if self.hidden_dim % self.num_heads:
            raise ValueError(f"hidden_dim {self.hidden_dim} is not a multiple of num_heads {self.num_heads}")
        if self.image.depth_bins == 1:
            raise ValueError("image.depth_bins needs two bins at least, or 0 for none")
        if self.style == "cmt" and (self.image.depth_bins or self.image.out_stride != 16):
            raise ValueError("style cmt has neither image.depth_bins nor another image.out_stride than 16")
        return self


class Router(Section):
    window_sizes: tuple[Count, Count] = (5, 9)
    """Side of the attended window in the BEV map and in an image map, cells, odd."""
    num_heads: Count = 4
    context: bool = False
    """Tell every query what each sensor looks like as a whole; where weights act on attention."""
    per_layer: bool = False
    """Weights of their own for every decoder layer; where weights act on attention."""

    @model_validator(mode="after")
    def _odd(self) -> Router:
        if any(size % 2 == 0 for size in self.window_sizes):
            raise ValueError(f"window_sizes {list(self.window_sizes)} must be odd")
        return self


class Renderer(Section):
    render_method: Literal["gaussian", "bilinear", "direct", "distance_weighted"] = "gaussian"
    gaussian_sigma: Positive = 1.0
    """Standard deviation of the Gaussian, and decay length of `distance_weighted`, in cells."""
    min_weight_threshold: NonNegative = 0.01
    max_weight_clamp: Annotated[float, Field(ge=1.0)] = 2.0
    lidar_gain: Positive = 1.0
    """The balance of the sensors: every query's LiDAR weight is multiplied by it before the map is bounded."""
    camera_gain: Positive = 1.0


NUMBER: Final = "<number>"
MAPPING: Final = "<mapping>"
DEFAULT_RESIDUAL: Final = "default"
"""Key of a residual per class that holds where no query stands, and for classes that are not named."""


class Modulator(Section):
    modulation_type: Literal["element_wise", "channel_wise", "adaptive"] = "element_wise"
    residual_weight: Annotated[
        Annotated[Fraction, Tag(NUMBER)] | Annotated[dict[str, Fraction], Tag(MAPPING)],
        Discriminator(lambda value: MAPPING if isinstance(value, dict) else NUMBER),
    ] = 0.7
    """A number, or one by class: `{default: 0.7, bicycle: 0.85}`. A mapping builds a class head in the router."""
    form: Literal["convex", "additive"] = "convex"
    gate: bool = True

    @model_validator(mode="after")
    def _by_class(self) -> Modulator:
        if isinstance(self.residual_weight, dict):
            unknown = self.residual_weight.keys() - {DEFAULT_RESIDUAL, *CLASSES}
            if unknown:
                raise ValueError(f"residual_weight: there is no class {min(unknown)!r}; known: {', '.join(CLASSES)}")
            if DEFAULT_RESIDUAL not in self.residual_weight:
                raise ValueError(
                    "residual_weight: a mapping needs `default`, for classes that it does not name and for cells "
                    "without a query"
                )
        return self

    @property
    def default_residual(self) -> float:
        """The number, or the default of the mapping."""
        residual = self.residual_weight
        return residual[DEFAULT_RESIDUAL] if isinstance(residual, dict) else residual

    @property
    def class_residuals(self) -> tuple[float, ...] | None:
        """One number per class of `aqr.taxonomy.CLASSES`; None where one number stands for all."""
        residual = self.residual_weight
        if not isinstance(residual, dict):
            return None
        return tuple(residual.get(name, residual[DEFAULT_RESIDUAL]) for name in CLASSES)


class Ramp(Section):
    """How a setting gets to its configured value, see `aqr.modulation.schedules`."""

    kind: Literal["constant", "linear", "cosine", "warmup"] = "constant"
    start: NonNegative = 1.0
    """Value before the first step; at 1 a clamp lets no weight amplify, and a residual modulates nothing."""
    until: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Share of the steps that `warmup` takes."""


class Schedules(Section):
    """Settings that move with training progress, off by default."""

    max_weight_clamp: Ramp = Ramp()
    residual_weight: Ramp = Ramp()

    @model_validator(mode="after")
    def _starts(self) -> Schedules:
        if self.max_weight_clamp.start < 1:
            raise ValueError("max_weight_clamp.start must be at least 1")
        if self.residual_weight.start > 1:
            raise ValueError("residual_weight.start must lie in [0, 1]")
        return self

    @property
    def moves(self) -> bool:
        """Whether anything is scheduled."""
        return any(ramp.kind != "constant" for ramp in (self.max_weight_clamp, self.residual_weight))


class ControllerConfig(Section):
    """Keep the cameras' relative_change inside a band, see `aqr.modulation.controller`; off by default."""

    enabled: bool = False
    band: tuple[Positive, Positive] = (0.25, 0.30)
    every: Count = 50
    """Steps between measurements."""
    start: Annotated[int, Field(ge=0)] = 0
    """Steps before the first one."""
    residual_range: tuple[Fraction, Annotated[float, Field(ge=0.0, lt=1.0)]] = (0.4, 0.95)
    clamp_range: tuple[Annotated[float, Field(ge=1.0)], Annotated[float, Field(ge=1.0)]] = (1.2, 3.0)
    residual_rate: Positive = 0.01
    """Largest move of residual_weight per measurement."""
    clamp_rate: Positive = 0.02
    """Largest relative move of max_weight_clamp per measurement."""
    smoothing: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    """Share of a new measurement in the running mean."""
    patience: Count = 5
    """Measurements at the ends of both ranges after which the band counts as out of reach."""

    @model_validator(mode="after")
    def _ranges(self) -> ControllerConfig:
        for name in ("band", "residual_range", "clamp_range"):
            low, high = getattr(self, name)
            if low >= high:
                raise ValueError(f"{name} {[low, high]} runs backwards or is empty")
        return self


PRESETS: Final[dict[str, tuple[float, float]]] = {
    "seed-2.5-0.6": (2.5, 0.6),
    "seed-2.0-0.65": (2.0, 0.65),
    "A": (2.0, 0.70),
    "B": (2.2, 0.68),
    "C": (2.0, 0.65),
}
"""max_weight_clamp and residual_weight of settings that have been tried or recommended, all without a gate."""


class Aqr(Section):
    enabled: bool = True
    preset: str | None = None
    """One of `PRESETS`; settings stated beside it win over the preset's."""
    target: Literal["features", "attention"] = "features"
    """What the weights act on: the feature maps, or the decoder's attention, see `aqr.modulation.attend`. There
    `renderer.max_weight_clamp` bounds the weights; the other settings of renderer and modulator say nothing."""
    parameterisation: Literal["sigmoid", "centered"] = "sigmoid"
    router: Router = Router()
    renderer: Renderer = Renderer()
    modulator: Modulator = Modulator()
    schedule: Schedules = Schedules()
    controller: ControllerConfig = ControllerConfig()

    @model_validator(mode="after")
    def _adaptive(self) -> Aqr:
        by_class = self.modulator.class_residuals is not None
        if self.target == "attention" and (by_class or self.schedule.moves or self.controller.enabled):
            raise ValueError("target: attention has no residual; leave out schedule, controller and residuals by class")
        if self.target == "features" and (self.router.context or self.router.per_layer):
            raise ValueError("router.context and router.per_layer need target: attention")
        if self.schedule.residual_weight.kind != "constant" and by_class:
            raise ValueError("schedule.residual_weight moves one number, but modulator.residual_weight is a mapping")
        if not self.controller.enabled:
            return self
        if self.schedule.moves:
            raise ValueError("schedule and controller move the same settings; leave one of them out")
        if by_class:
            raise ValueError("controller moves one residual_weight, but modulator.residual_weight is a mapping")
        if self.modulator.gate:
            raise ValueError(
                "controller needs modulator.gate: false, because a gate learns by itself how much is changed"
            )
        if self.modulator.form != "convex":
            raise ValueError("controller needs modulator.form: convex, where the change falls as the residual rises")
        if self.modulator.residual_weight == 1:
            raise ValueError("controller needs a modulator.residual_weight below 1, where there is a change to measure")
        return self

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("preset") is None:
            return values
        if not isinstance(values["preset"], str) or values["preset"] not in PRESETS:
            raise ValueError(f"unknown preset {values['preset']!r}; known: {', '.join(PRESETS)}")
        return _merge(_preset(values["preset"]), values)


def _preset(name: str) -> dict[str, Any]:
    clamp, residual = PRESETS[name]
    return {
        "parameterisation": "sigmoid",
        "renderer": {"max_weight_clamp": clamp},
        "modulator": {"residual_weight": residual, "form": "convex", "gate": False},
    }


class Train(Section):
    steps: Count = 20_000
    """Optimizer steps in all."""
    lr: Positive = 1.4e-4
    """Learning rate at the start of the one-cycle schedule."""
    lr_peak: Annotated[float, Field(ge=1.0)] = 6.0
    """Peak over start; the schedule ends at lr · 1e-4."""
    warmup_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.4
    lr_mult: dict[str, NonNegative] = {"image_encoder.backbone": 0.01, "image_encoder.neck": 0.1}
    """Learning-rate factor by parameter-name prefix in the detector; the longest matching prefix counts."""
    weight_decay: NonNegative = 0.01
    grad_clip: Positive = 35.0
    precision: Annotated[Literal["32", "bf16", "16"], BeforeValidator(str)] = "bf16"
    compile: Literal[False, True, "graphs"] = False
    """Compile the detector with torch.compile: the first steps take minutes, the others less time. For GPUs; `graphs`
    also runs most parts as CUDA graphs, which helps where the host is slow."""
    devices: Count = 1
    log_every: Count = 50
    stats_every: Count = 1000
    """Steps between snapshots of AQR statistics."""
    checkpoint_every: Count = 1000
    val_every: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations on val_split; 0 evaluates at the end only."""
    init_from: Path | None = None
    """Checkpoint whose matching weights the detector starts from."""


class Config(Section):
    """One training run."""

    seed: Annotated[int, Field(ge=0)] = 0
    sensors: Sensors = Sensors()
    data: Data = Data()
    detector: DetectorConfig = DetectorConfig()
    aqr: Aqr = Aqr()
    train: Train = Train()

    @model_validator(mode="after")
    def _router(self) -> Config:
        if self.aqr.enabled and self.detector.hidden_dim % self.aqr.router.num_heads:
            raise ValueError(
                f"detector.hidden_dim {self.detector.hidden_dim} is not a multiple of aqr.router.num_heads "
                f"{self.aqr.router.num_heads}"
            )
        return self

    def to_yaml(self) -> str:
        """Every setting, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def parse(values: dict[str, Any], source: str = "config") -> Config:
    """Validate nested settings.

    Args:
        values: as read from YAML.
        source: file name for error messages.

    Raises:
        InputError: naming the key, what is wrong and the mend.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part not in (NUMBER, MAPPING)) or "the config"
        if first["type"] == "extra_forbidden":
            raise InputError(f"{source}: unknown key {key}; {_near_keys(first['loc'])}") from None
        got = first.get("input")
        shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
        raise InputError(
            f"{source}: {key}: {first['msg'].removeprefix('Value error, ')}{shown}; change it there"
        ) from None


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file and apply `section.key=value` overrides, whose values are YAML.

    A file may name one other to start from under the key `base` (a path relative to it), which has no base itself.
    Overrides count in their order: `aqr.preset=B` replaces what the file says of the preset's settings.

    Raises:
        InputError: where the file is missing, is no YAML mapping, or holds a wrong setting.
    """
    values = _read(Path(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"override {override!r} is not of the form section.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"override {override!r}: the value is not valid YAML") from None
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        values = _merge(values, nested)
        if key == "aqr.preset" and isinstance(value, str) and value in PRESETS:
            values = _merge(values, {"aqr": _preset(value)})
    return parse(values, str(path))


def _read(path: Path, may_have_base: bool = True) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a config file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place else ""
        raise InputError(f"{path}: is not valid YAML{where}; mend the syntax there") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: must hold `section: {{key: value}}`, not a {type(values).__name__}")
    if "base" not in values:
        return values
    if not may_have_base:
        raise InputError(f"{path}: is the base of another file and names a base itself; write its settings out")
    base = values.pop("base")
    return _merge(_read(path.parent / str(base), may_have_base=False), values)


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _near_keys(location: tuple[int | str, ...]) -> str:
    """The keys that a section does know, for the sentence about one that it does not."""
    section: Any = Config
    for part in location[:-1]:
        section = get_args(section)[0] if isinstance(part, int) else section.model_fields[part].annotation
    return "known here: " + ", ".join(section.model_fields)
