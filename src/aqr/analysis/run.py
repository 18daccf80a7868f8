"""One training run as every reader hands it over.

A figure that the source does not state is None (or absent from its mapping), never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aqr.analysis.language import Message

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WEIGHTS = ("lidar_weights", "camera_weights")
MAPS = ("weight_map_bev", "weight_map_pers")
MODULATION = ("modulation_bev", "modulation_pers")
GROUPS = WEIGHTS + MAPS + MODULATION
GATES = ("lidar_gate", "camera_gate")

METRICS = ("mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "mAAE")
CLASS_METRICS = ("AP", "ATE", "ASE", "AOE", "AVE", "AAE")

Kind = Literal[
    "mmcv text log", "mmengine text log", "JSON log", "TensorBoard events", "run folder", "evaluation", "unknown"
]


@dataclass(frozen=True)
class Series:
    """A logged quantity over time. NaN and infinity are what the log says, not gaps.

    Attributes:
        iteration: [N] global iteration, strictly increasing.
        value: [N].
    """

    iteration: Ints
    value: Floats

    def __len__(self) -> int:
        return len(self.iteration)

    def at(self, iteration: int) -> float | None:
        """The value logged at exactly this iteration."""
        place = int(np.searchsorted(self.iteration, iteration))
        if place < len(self.iteration) and self.iteration[place] == iteration:
            return float(self.value[place])
        return None

    def finite(self) -> Series:
        keep = np.isfinite(self.value)
        return Series(self.iteration[keep], self.value[keep])


@dataclass(frozen=True)
class Training:
    """What was logged while training.

    Attributes:
        series: by the field's name: loss, loss_cls, d0.loss_bbox, dn_loss_cls, lr, grad_norm, router_grad_norm,
            step_time_s, data_time_s, memory_mb, ...
        planned: iterations the run was to take, where stated.
        completed: iterations that the log shows to be done by other means than a logged line (the end of an epoch).
        epoch_length: iterations per epoch, where stated.
    """

    series: Mapping[str, Series] = field(default_factory=dict)
    planned: int | None = None
    completed: int | None = None
    epoch_length: int | None = None

    @property
    def last_logged(self) -> int | None:
        return max((int(one.iteration[-1]) for one in self.series.values() if len(one)), default=None)

    @property
    def iterations(self) -> int | None:
        """Iterations done, as far as the log shows."""
        return max((n for n in (self.completed, self.last_logged) if n is not None), default=None)

    @property
    def nonfinite_grad_iterations(self) -> tuple[int, ...]:
        """Iterations of log lines whose grad_norm is NaN or infinite."""
        norms = self.series.get("grad_norm")
        return () if norms is None else tuple(norms.iteration[~np.isfinite(norms.value)].tolist())

    def median(self, name: str) -> float | None:
        values = self.series[name].finite().value if name in self.series else np.empty(0)
        return float(np.median(values)) if len(values) else None

    def largest(self, name: str) -> float | None:
        values = self.series[name].finite().value if name in self.series else np.empty(0)
        return float(values.max()) if len(values) else None


@dataclass(frozen=True)
class ClassResult:
    """nuScenes results of one class.

    Attributes:
        errors: AP, ATE, ASE, AOE, AVE, AAE as far as stated; NaN where nuScenes defines none.
        ap_by_distance: AP per matching distance (m), where stated.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    ap_by_distance: Mapping[str, float] = field(default_factory=dict)

    @property
    def ap(self) -> float | None:
        """AP as printed, else the mean over the four matching distances."""
        if "AP" in self.figures:
            return self.figures["AP"]
        if len(self.ap_by_distance) == 4:
            return round(float(np.mean(list(self.ap_by_distance.values()))), 6)
        return None

    def figure(self, name: str) -> float | None:
        return self.ap if name == "AP" else self.figures.get(name)


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on a validation split.

    Attributes:
        figures: of `METRICS`, as far as stated.
        per_class: by class name.
        iteration: where in training it took place; None where not stated.
        split: name of the split (with the sensor failure, where one was simulated), where stated.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    per_class: Mapping[str, ClassResult] = field(default_factory=dict)
    iteration: int | None = None
    split: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """AQR statistics of one forward pass.

    Attributes:
        forward: number of the forward pass.
        ranks: GPUs that the figures come from.
        pooled: True where the figures are over all ranks already, so that their spread is not known.
        samples: group -> statistic -> one value per rank that printed it (one value where pooled).
        queries: weights per sample, one count per rank that printed a shape.
        changes: (largest |F'| of the image features, largest |F' − F|) of one rank, one pair per intact debug block.
        settings: max_weight_clamp and residual_weight of this forward pass, in runs that move them.
        stopped: whether the controller of such a run had given up.
        gates: `lidar_gate` and `camera_gate`, the learned factors on the change, as far as logged.
    """

    forward: int
    ranks: int
    pooled: bool
    samples: Mapping[str, Mapping[str, Floats]]
    queries: tuple[int, ...] = ()
    changes: tuple[tuple[float, float], ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)
    stopped: bool = False
    gates: Mapping[str, float] = field(default_factory=dict)

    def values(self, group: str, statistic: str) -> Floats:
        """One value per rank; empty where not stated."""
        return self.samples.get(group, {}).get(statistic, np.empty(0))

    def mean(self, group: str, statistic: str) -> float | None:
        values = self.values(group, statistic)
        return float(values.mean()) if len(values) else None

    def rank_std(self, group: str, statistic: str) -> float | None:
        """Population standard deviation between ranks; None where fewer than two values are known."""
        values = self.values(group, statistic)
        return float(values.std()) if len(values) >= 2 and not self.pooled else None

    def low(self, group: str, statistic: str = "min") -> float | None:
        values = self.values(group, statistic)
        return float(values.min()) if len(values) else None

    def high(self, group: str, statistic: str = "max") -> float | None:
        values = self.values(group, statistic)
        return float(values.max()) if len(values) else None

    def spread(self, group: str) -> float | None:
        """Standard deviation over all entries of all ranks (ranks taken to hold equally many)."""
        means, stds = self.values(group, "mean"), self.values(group, "std")
        if not len(means) or len(means) != len(stds):
            return None
        return float(np.sqrt(max((stds**2 + means**2).mean() - means.mean() ** 2, 0.0)))


@dataclass(frozen=True)
class Setting:
    """A setting and where it was found.

    Attributes:
        origin: `config` (printed or saved), `measured` (follows from logged figures), `file name`, or `moved` (where
            training had moved it by the last snapshot).
    """

    value: str | float | int | bool
    origin: Literal["config", "measured", "file name", "moved"]


@dataclass(frozen=True)
class Run:
    """A training run: settings, training curves, evaluations, AQR statistics, and what the source lacks."""

    name: str
    source: Path
    kind: Kind
    settings: Mapping[str, Setting] = field(default_factory=dict)
    training: Training = field(default_factory=Training)
    evaluations: tuple[Evaluation, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    notes: tuple[Message, ...] = ()
    maps: tuple[Path, ...] = ()

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """The last evaluation without simulated failure."""
        plain = [one for one in self.evaluations if one.split is None or "-" not in one.split]
        return plain[-1] if plain else None

    @property
    def uses_aqr(self) -> bool | None:
        """Whether AQR was on: by its statistics, else by the settings, else unknown."""
        if self.snapshots:
            return True
        setting = self.settings.get("enable_aqr")
        return None if setting is None else bool(setting.value)

    @property
    def in_attention(self) -> bool:
        """Whether AQR's weights act in attention, so that features stay as they are (`aqr.target: attention`)."""
        return self.text("target") == "attention"

    def number(self, name: str) -> float | None:
        setting = self.settings.get(name)
        if setting is None or isinstance(setting.value, bool | str):
            return None
        return float(setting.value)

    def text(self, name: str) -> str | None:
        setting = self.settings.get(name)
        return setting.value if setting is not None and isinstance(setting.value, str) else None
