"""One forward pass through the real `modulate`, as a run would log and save it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from aqr.analysis.run import Run, Setting, Snapshot
from aqr.modulation.modulate import Form, ModulationType, modulate

Array = NDArray[np.float64]
SHORT = {"camera": "pers", "bev": "bev"}


@dataclass(frozen=True)
class Forward:
    """Weight maps before the clamp [B, V, H, W] and features [B, V, C, H, W], by sensor, and the settings."""

    raw: dict[str, Array]
    features: dict[str, Array]
    clamp: float
    residual: float
    form: Form = "convex"
    pooling: ModulationType = "element_wise"
    gate: float | None = None

    def change(self, sensor: str, clamp: float, residual: float) -> float:
        """relative_change with any clamp and residual."""
        before = torch.from_numpy(self.features[sensor])
        weights = torch.from_numpy(np.minimum(self.raw[sensor], clamp))
        gate = None if self.gate is None else torch.tensor(self.gate, dtype=torch.float64)
        after = modulate(before, weights, residual, self.form, self.pooling, gate)
        return float(((after - before).abs() / (before.abs() + 1e-8)).mean())

    def now(self, sensor: str) -> float:
        return self.change(sensor, self.clamp, self.residual)

    def snapshot(self, forward: int = 30, ranks: int = 1, **moved: float) -> Snapshot:
        samples = {}
        for sensor, raw in self.raw.items():
            weights = np.minimum(raw, self.clamp)
            figures = {"mean": weights.mean(), "std": weights.std(), "max": weights.max()}
            samples[f"weight_map_{SHORT[sensor]}"] = {name: np.array([value]) for name, value in figures.items()}
            samples[f"modulation_{SHORT[sensor]}"] = {"relative_change": np.array([self.now(sensor)])}
        gates = {} if self.gate is None else {"camera_gate": self.gate, "lidar_gate": self.gate}
        return Snapshot(forward, ranks, True, samples, settings=moved, gates=gates)

    def run(self, *snapshots: Snapshot, maps: tuple[Path, ...] = ()) -> Run:
        stated = {
            "max_weight_clamp": self.clamp,
            "residual_weight": self.residual,
            "form": self.form,
            "modulation_type": self.pooling,
            "gate": self.gate is not None,
        }
        settings = {name: Setting(value, "config") for name, value in stated.items()}
        shown = snapshots or (self.snapshot(),)
        return Run(name="run", source=Path("run"), kind="run folder", settings=settings, snapshots=shown, maps=maps)

    def save(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = {SHORT[sensor]: np.minimum(raw, self.clamp).astype(np.float32) for sensor, raw in self.raw.items()}
        np.savez(path, **{f"weight_map_{short}": values for short, values in weights.items()})
        return path


def raw_map(rng: np.random.Generator, share: float, scale: float) -> Array:
    """0 on most cells, with weights and pile-ups on the others; 2 × 3 maps that differ in how full they are."""
    shape = (2, 3, 8, 12)
    filled = rng.random(shape) < share * rng.uniform(0.2, 1.8, (2, 3, 1, 1))
    return np.where(filled, rng.gamma(0.8, scale, shape), 0.0)


def sparse_features(rng: np.random.Generator, raw: Array, empty: float) -> Array:
    """Features, all channels 0 on a share of the cells; on fewer of those where the map is not 0."""
    shown = rng.random(raw.shape) >= np.where(raw > 0, empty / 4, empty)
    values = rng.choice([-1.0, 1.0], (*raw.shape[:2], 3, *raw.shape[2:])) * rng.uniform(0.5, 2.0, (3, 1, 1))
    return values * shown[:, :, None]


def forward_pass(seed: int, share: float, scale: float, empty: float, **settings: object) -> Forward:
    """Image features that are nowhere 0, BEV features that mostly are."""
    rng = np.random.default_rng(seed)
    raw = {"camera": raw_map(rng, share, scale), "bev": raw_map(rng, share, scale)[:, :1]}
    features = {
        "camera": sparse_features(rng, raw["camera"], 0.0),
        "bev": sparse_features(rng, raw["bev"], empty),
    }
    return Forward(raw, features, **settings)  # type: ignore[arg-type]
