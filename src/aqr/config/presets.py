"""Settings of AQR that go by a name."""

from __future__ import annotations

from typing import Any, Final

PRESETS: Final[dict[str, tuple[float, float]]] = {
    "seed-2.5-0.6": (2.5, 0.6),
    "seed-2.0-0.65": (2.0, 0.65),
    "A": (2.0, 0.70),
    "B": (2.2, 0.68),
    "C": (2.0, 0.65),
}
"""max_weight_clamp and residual_weight of settings that have been tried or recommended, all without a gate."""


def preset_settings(name: str) -> dict[str, Any]:
    """What the section `aqr` states where it names a preset of `PRESETS`."""
    clamp, residual = PRESETS[name]
    return {
        "parameterisation": "sigmoid",
        "renderer": {"max_weight_clamp": clamp},
        "modulator": {"residual_weight": residual, "form": "convex", "gate": False},
    }
