"""Settings of AQR, under the names that people know from earlier AQR experiments."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from aqr.config.adaptation import ControllerConfig, Schedules
from aqr.config.merge import merge
from aqr.config.presets import PRESETS, preset_settings
from aqr.config.section import Count, Fraction, NonNegative, Positive, Section
from aqr.taxonomy import CLASSES


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
        return merge(preset_settings(values["preset"]), values)
